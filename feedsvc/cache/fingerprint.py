"""What a dataset's pages depend on beside the query, in a few characters for their keys."""

import hashlib

from feedsvc.csv_projection import csv_record
from feedsvc.datasets import Dataset
from feedsvc.projection import json_record


def fingerprint(dataset: Dataset, page_size: int) -> str:
    """Its relation, whose rows of it a caller gets, how many make a page, how they are encoded.

    PostgreSQL encodes them, so the SQL that does it stands for this release's way of doing it.
    """
    columns = tuple(dataset.columns.values())
    held_to = dataset.tenant, dataset.client, dataset.shared_with_clients
    encoders = json_record(columns), csv_record(columns, ",", guard=True)
    parts = dataset.name, dataset.relation, columns, held_to, dataset.tags, page_size, encoders
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

"""Proof of indexes: the queries that use each, and their cost and pages with it and without it."""

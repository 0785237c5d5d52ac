"""Columns whose names suggest a secret."""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

_WORDS: Final = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "tokens", "hash"}
    | {"salt", "iban", "bic", "ssn", "cvv", "cvc", "pin", "otp", "totp", "credential"}
    | {"credentials", "apikey", "privatekey"}
)
_PAIRS: Final = frozenset({"api key", "private key", "secret key", "access key", "card number"})
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def secret_looking(columns: Iterable[str]) -> list[str]:
    """Those of the columns that are named like a secret: password_hash, apiKey, IBAN."""
    return [column for column in columns if _is_named_so(column)]


def _is_named_so(column: str) -> bool:
    words = [word.lower() for word in _WORD.findall(column)]
    pairs = {f"{first} {second}" for first, second in pairwise(words)}
    return not _WORDS.isdisjoint(words) or not _PAIRS.isdisjoint(pairs)

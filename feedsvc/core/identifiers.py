"""Random names: of requests, exports, entries of the audit log. None is a secret.

They come from a generator that the system seeded once, for a call of getrandom(2) for each name
costs more than all else that a cached page needs. What must not be guessed comes from `secrets`.
"""

import os
import random
from typing import Final

_random: Final = random.Random()  # noqa: S311 - names, not secrets
os.register_at_fork(after_in_child=_random.seed)  # or two processes would give the same names
_VERSION_4: Final = (4 << 76) | (2 << 62)
_FREE_BITS: Final = ((1 << 128) - 1) ^ (15 << 76) ^ (3 << 62)


def new_hex() -> str:
    """128 random bits in 32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"


def new_uuid() -> str:
    """A random UUID as text (RFC 9562, section 5.4)."""
    digits = f"{_random.getrandbits(128) & _FREE_BITS | _VERSION_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

"""Readers of parameters: texts that PostgreSQL accepts for a type.

Parameters reach PostgreSQL as text and are cast there (`$1::text::pg_catalog.int8`), so its own
types judge them. They are judged here first, more strictly, so that a bad one is refused before a
connection is taken. Each reader returns the text to send, or raises ValueError with what is
allowed. Ranges are those of PostgreSQL 18's documentation, chapter 8.
"""

import ipaddress
import re
import uuid
from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from typing import Final

ValueReader = Callable[[str], str]

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"([+-]?)([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE]([+-]?[0-9]{1,6}))?")
_SPECIAL_NUMBER = re.compile(r"nan|[+-]?(inf|infinity)", re.IGNORECASE)
_DATE = re.compile(r"([0-9]{4,7})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2})(:([0-9]{2})(\.[0-9]{1,9})?)?")
_OFFSET = re.compile(r"Z|[+-]([0-9]{2})(:?([0-9]{2}))?")
_BLANK_OFFSET = re.compile(r"(T[0-9:.]+) ([0-9]{2}(?::?[0-9]{2})?(?: BC)?)$")
_MACADDR = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_BYTES = re.compile(r"\\x([0-9a-fA-F]{2})*")
_UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)
# Python would take a netmask and leading zeros too.
_ADDRESS = re.compile(r"[0-9a-f.:]+(/(0|[1-9][0-9]{0,2}))?", re.IGNORECASE)
_ONE_BYTE = re.compile(r"[\x01-\x7f]?|\\[23][0-7]{2}")
_LONGEST_NAME: Final = 63
_INFINITE: Final = ("infinity", "-infinity")

_BOOLEANS: Final = {"true": "true", "false": "false", "t": "true", "f": "false"}
_LEAP_YEAR: Final = 2024
_COMMON_YEAR: Final = 2023
# The ends of PostgreSQL's calendar, their years counted with a year 0 (4714 BC is -4713).
_FIRST_DAY: Final = (-4713, 11, 24)
_LAST_DAY_OF_TIMESTAMPS: Final = (294_276, 12, 31)
_UTC: Final = ("", "Z", "+00", "+00:00")
_MAX_NUMERIC_EXPONENT: Final = 16_000
_MAX_NUMERIC_DIGITS: Final = 16_000
_MAX_NUMERIC_SCALE: Final = 16_383
_FLOAT4_MAX: Final = 3.402823567797336e38
_FLOAT4_MIN: Final = 7.0064923216240862e-46


def text(value: str) -> str:
    """Any text that PostgreSQL can hold: no NUL, no lone surrogate."""
    if "\0" in value:
        raise ValueError("text without NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("text without lone surrogates") from None
    return value


def one_byte(value: str) -> str:
    """Text for PostgreSQL's one-byte "char"; of a longer one it would keep the first byte."""
    if not _ONE_BYTE.fullmatch(value):
        raise ValueError("a single ASCII character, none, or an escape such as \\303")
    return value


def name(value: str) -> str:
    """Text for PostgreSQL's type `name`, which would cut off a longer one."""
    if len(text(value).encode()) > _LONGEST_NAME:
        raise ValueError(f"a text of at most {_LONGEST_NAME} bytes")
    return value


def boolean(value: str) -> str:
    """`true` or `false`."""
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def integer(low: int, high: int) -> ValueReader:
    """A reader of whole numbers from low to high."""

    def read(value: str) -> str:
        if not _INTEGER.fullmatch(value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return read


def oid(value: str) -> str:
    """An object's number. To PostgreSQL a leading zero would make it octal."""
    if len(digits := value.lstrip("+-")) > 1 and digits.startswith("0"):
        raise ValueError("a whole number without leading zeros")
    return _oid(value)


_oid: Final = integer(0, 2**32 - 1)


def numeric(value: str) -> str:
    """A decimal number of up to 16,000 digits, `NaN` or an infinity."""
    if _SPECIAL_NUMBER.fullmatch(value):
        return value
    parts = _NUMBER.fullmatch(value)
    if (
        parts is None
        or len(value) > _MAX_NUMERIC_DIGITS
        or abs(int(parts[5] or 0)) > _MAX_NUMERIC_EXPONENT
        or _scale(parts) > _MAX_NUMERIC_SCALE
    ):
        raise ValueError(f"a decimal number of at most {_MAX_NUMERIC_DIGITS} digits")
    return value


def _scale(parts: re.Match[str]) -> int:
    """The number of digits that PostgreSQL would keep behind the decimal point."""
    return len(parts[2].partition(".")[2]) - int(parts[5] or 0)


def floating(smallest: float, largest: float) -> ValueReader:
    """A reader of binary floating point numbers whose absolute value lies between these."""

    def read(value: str) -> str:
        if _SPECIAL_NUMBER.fullmatch(value):
            return value
        parts = _NUMBER.fullmatch(value)
        size = abs(float(value)) if parts else float("inf")
        is_zero = parts is not None and not parts[2].strip("0.")
        if not is_zero and not smallest <= size <= largest:
            raise ValueError("a number within the range of its floating point type")
        return value

    return read


def uuid_text(value: str) -> str:
    """A UUID in its usual form."""
    if not _UUID.fullmatch(value):
        raise ValueError("a UUID")
    return str(uuid.UUID(value))


def date(value: str) -> str:
    """An ISO 8601 date from 4714 BC to 5874897, with ` BC` where it is, or an infinity."""
    if value.lower() in _INFINITE:
        return value
    body, era = _without_era(value)
    if _day(body, era, last_year=5_874_897) is None:
        raise ValueError("a date such as 2026-05-30")
    return value


def time(value: str) -> str:
    """A time of day such as 17:30:00.25."""
    if not _is_time(value):
        raise ValueError("a time such as 17:30:00")
    return value


def timestamp(value: str) -> str:
    """An ISO 8601 date with a time, no offset."""
    return _timestamp(value, offset=False)


def timestamptz(value: str) -> str:
    """An ISO 8601 date with a time and an offset; without one it is UTC."""
    # A `+` that was not percent-encoded arrives as a blank, which can mean nothing else here.
    return _timestamp(_BLANK_OFFSET.sub(r"\1+\2", value), offset=True)


def _timestamp(value: str, *, offset: bool) -> str:
    if value.lower() in _INFINITE:
        return value
    body, era = _without_era(value)
    date_part, separator, zoned = body.replace(" ", "T", 1).partition("T")
    clock = _without_offset(zoned) if offset else zoned
    day = _day(date_part, era, last_year=_LAST_DAY_OF_TIMESTAMPS[0])
    if (
        day is None
        or (not _is_time(clock) and separator)
        or (day in (_FIRST_DAY, _LAST_DAY_OF_TIMESTAMPS) and _may_leave_its_day(clock, zoned))
    ):
        example = "2026-05-30T17:30:00" + "Z" * offset
        raise ValueError(f"a date and time such as {example}")
    return value


def _may_leave_its_day(clock: str, zoned: str) -> bool:
    """Return whether an offset, or rounding to microseconds, could move the time to another day."""
    exact = not clock.startswith("24") and len(clock.partition(".")[2]) <= 6
    return not exact or zoned.removeprefix(clock) not in _UTC


def _without_era(value: str) -> tuple[str, bool]:
    return (value[:-3], True) if value.endswith(" BC") else (value, False)


def _without_offset(clock: str) -> str:
    for position, sign in enumerate(clock):
        if sign in "Z+-":
            offset = _OFFSET.fullmatch(clock[position:])
            valid = offset and int(offset[1] or 0) <= 15 and int(offset[3] or 0) <= 59
            return clock[:position] if valid else "invalid"
    return clock


def _day(value: str, bc: bool, last_year: int) -> tuple[int, int, int] | None:
    """The date, its year counted with a year 0; None where there is no such day."""
    parts = _DATE.fullmatch(value)
    if parts is None:
        return None
    year, month, day = (int(part) for part in parts.groups())
    if not 1 <= year <= last_year or not 1 <= month <= 12:
        return None
    counted = 1 - year if bc else year
    leap = counted % 4 == 0 and (counted % 100 != 0 or counted % 400 == 0)
    if not 1 <= day <= monthrange(_LEAP_YEAR if leap else _COMMON_YEAR, month)[1]:
        return None
    return (counted, month, day) if (counted, month, day) >= _FIRST_DAY else None


def _is_time(value: str) -> bool:
    parts = _TIME.fullmatch(value)
    if parts is None:
        return False
    hour, minute, second = int(parts[1]), int(parts[2]), int(parts[4] or 0)
    fraction = (parts[5] or ".0").strip(".0")
    if hour == 24:
        return not (minute or second or fraction)
    return hour <= 23 and minute <= 59 and second <= 59


def address(value: str) -> str:
    """An IPv4 or IPv6 address, with its prefix length where it has one."""
    try:
        ipaddress.ip_interface(value)
        valid = _ADDRESS.fullmatch(value) is not None
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("an IP address such as 192.0.2.1 or 192.0.2.0/24")
    return value


def network(value: str) -> str:
    """An IPv4 or IPv6 network without bits behind its prefix."""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("a network such as 192.0.2.0/24") from None
    return address(value)


def mac_address(value: str) -> str:
    """Six pairs of hexadecimal digits, joined with colons."""
    if not _MACADDR.fullmatch(value):
        raise ValueError("a MAC address such as 08:00:2b:01:02:03")
    return value


def byte_string(value: str) -> str:
    r"""Bytes as PostgreSQL writes them: `\x` and hexadecimal digits."""
    if not _BYTES.fullmatch(value):
        raise ValueError("bytes such as \\x00ff")
    return value


def label(labels: Sequence[str]) -> ValueReader:
    """A reader of an enum's labels."""
    known = frozenset(labels)

    def read(value: str) -> str:
        if value not in known:
            raise ValueError("one of " + ", ".join(labels))
        return value

    return read


TEXT_READERS: Final[Mapping[str, ValueReader]] = {"char": one_byte, "name": name}
"""Readers of the string types that can't hold any text, by the same names as `READERS`."""

READERS: Final[Mapping[str, ValueReader]] = {
    "bool": boolean,
    "int2": integer(-(2**15), 2**15 - 1),
    "int4": integer(-(2**31), 2**31 - 1),
    "int8": integer(-(2**63), 2**63 - 1),
    "oid": oid,
    "float4": floating(_FLOAT4_MIN, _FLOAT4_MAX),
    "float8": floating(5e-324, 1.7976931348623157e308),
    "numeric": numeric,
    "uuid": uuid_text,
    "date": date,
    "time": time,
    "timestamp": timestamp,
    "timestamptz": timestamptz,
    "inet": address,
    "cidr": network,
    "macaddr": mac_address,
    "bytea": byte_string,
}
"""Readers by the name that the type has in `pg_type`; text kinds and enums have their own."""

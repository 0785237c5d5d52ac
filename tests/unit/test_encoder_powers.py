"""The encoder's table of powers of ten, which its floating point numbers rest on.

`python -m tests.unit.test_encoder_powers` prints the file.
"""

import sys
from fractions import Fraction
from pathlib import Path

HEADER = Path(__file__).parents[2] / "streams" / "encoder" / "native" / "powers.h"
LEAST, MOST = -292, 324
BITS = 128

BEGINNING = f"""\
/* 10^k for each k from {LEAST} to {MOST}: the upper and the lower half of the {BITS} leading bits,
 * rounded up. Made by tests/unit/test_encoder_powers.py. */
#ifndef FEEDSVC_POWERS_H
#define FEEDSVC_POWERS_H

#include <stdint.h>

enum {{ LEAST_POWER_OF_TEN = {LEAST} }};

static const uint64_t powers_of_ten[][2] = {{
"""
END = "};\n\n#endif\n"


def header() -> str:
    """The file as it must be."""
    entries = [_entry(leading_bits(k)) for k in range(LEAST, MOST + 1)]
    lines = [" ".join(entries[at : at + 2]) for at in range(0, len(entries), 2)]
    return BEGINNING + "".join(f"    {line}\n" for line in lines) + END


def leading_bits(k: int) -> int:
    """10^k, scaled by a power of two to lie in [2^127, 2^128), rounded up."""
    power = Fraction(10) ** k
    scale = BITS - 1 - (power.numerator.bit_length() - power.denominator.bit_length())
    scaled = power * Fraction(2) ** scale
    scaled *= 2 if scaled < 2 ** (BITS - 1) else 1
    return -(-scaled.numerator // scaled.denominator)


def _entry(bits: int) -> str:
    return f"{{0x{bits >> 64:016x}, 0x{bits & (1 << 64) - 1:016x}}},"


def test_the_table_is_what_its_rule_says() -> None:
    assert HEADER.read_text() == header()


def test_each_entry_has_its_leading_bit() -> None:
    assert all(1 << 127 <= leading_bits(k) < 1 << 128 for k in range(LEAST, MOST + 1))


if __name__ == "__main__":
    sys.stdout.write(header())

"""LibreOffice Calc, opening a CSV file with the separator and the language of a user's choice."""

import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = shutil.which("soffice")
needs_libreoffice = pytest.mark.skipif(PROGRAM is None, reason="LibreOffice is not installed")

ENGLISH: Final = 1033
GERMAN: Final = 1031

_UTF8: Final = 76
_TABLE: Final = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE: Final = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"


@dataclass(frozen=True)
class Cell:
    """A cell as Calc takes it: its type (float, date, string, …), value and formula."""

    kind: str | None
    value: str
    formula: str | None


def opened(
    bodies: Sequence[bytes], folder: Path, separators: str, language: int = ENGLISH
) -> list[list[list[Cell]]]:
    """The rows of files, read as with "detect special numbers" and "evaluate formulas" ticked.

    Each of the separators ends a field. One start opens all the files, for a start takes two
    seconds. The numbers of the filter's options are in LibreOffice's help, "CSV Filter Parameters".
    """
    assert PROGRAM is not None
    sources = [folder / f"opened{number}.csv" for number in range(len(bodies))]
    for source, body in zip(sources, bodies, strict=True):
        source.write_bytes(body)
        source.with_suffix(".fods").unlink(missing_ok=True)
    ends = "/".join(str(ord(each)) for each in separators)
    options = f"{ends},34,{_UTF8},1,,{language},false,true,false,false,false,0,true"
    # One for all tests of this process: a user's first start takes as long as many later ones.
    profile = f"-env:UserInstallation={(folder.parent / 'libreoffice').as_uri()}"
    command = [PROGRAM, profile, "--headless", f"--infilter=CSV:{options}"]
    command += ["--convert-to", "fods", "--outdir", str(folder), *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return [_rows(source.with_suffix(".fods")) for source in sources]


def _rows(file: Path) -> list[list[Cell]]:
    rows = ET.parse(file).getroot().iter(f"{_TABLE}table-row")
    return [_cells(row) for row in rows]


def formulas(rows: list[list[Cell]]) -> list[str]:
    """The part of it that Calc runs."""
    return [cell.formula for row in rows for cell in row if cell.formula is not None]


def _cells(row: ET.Element) -> list[Cell]:
    found: list[Cell] = []
    for cell in row.iter(f"{_TABLE}table-cell"):
        kind = cell.get(f"{_OFFICE}value-type")
        value = cell.get(f"{_OFFICE}value") or cell.get(f"{_OFFICE}date-value")
        text = "\n".join("".join(part.itertext()) for part in cell)
        repeated = int(cell.get(f"{_TABLE}number-columns-repeated", "1"))
        if kind is not None or repeated < 1000:
            found += [Cell(kind, value or text, cell.get(f"{_TABLE}formula"))] * repeated
    return found

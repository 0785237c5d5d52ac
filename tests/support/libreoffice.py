"""LibreOffice Calc, opening a CSV file with the separator and the language of a user's choice."""

import shutil
import subprocess
import xml.etree.ElementTree as ET
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
    """What Calc takes a cell for: its type (float, date, string, …), value and formula."""

    kind: str | None
    value: str
    formula: str | None


def opened(body: bytes, folder: Path, separator: str, language: int = ENGLISH) -> list[list[Cell]]:
    """The rows of a file, read as with "detect special numbers" and "evaluate formulas" ticked.

    The numbers of the filter's options are in LibreOffice's help, "CSV Filter Parameters".
    """
    assert PROGRAM is not None
    source, made = folder / "opened.csv", folder / "opened.fods"
    source.write_bytes(body)
    made.unlink(missing_ok=True)
    options = f"{ord(separator)},34,{_UTF8},1,,{language},false,true,false,false,false,0,true"
    profile = f"-env:UserInstallation={(folder / 'profile').as_uri()}"
    command = [PROGRAM, profile, "--headless", f"--infilter=CSV:{options}"]
    command += ["--convert-to", "fods", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    rows = ET.parse(made).getroot().iter(f"{_TABLE}table-row")
    return [_cells(row) for row in rows]


def formulas(rows: list[list[Cell]]) -> list[str]:
    """What of it Calc runs."""
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

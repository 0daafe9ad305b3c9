"""Sample sheets: many samples in one table instead of as many sections.

Invariants
----------
- A sheet is a CSV or TSV file with a heading. Its columns are `name` and keys of a sample, nested ones
  with a dot (`voxel_size.z`); an empty cell leaves the key out.
- Samples of the sheet and of the configuration are taken together; a name may occur once.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volsam.errors import VolsamError

# Cells that stay text even if they look like numbers.
TEXT = frozenset({"name", "image", "axes", "key", "unit", "mask", "mask_key", "truth", "truth_key"})


def with_sheet(data: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose `sheet`, if it names one, is read into `samples`.

    Raises
    ------
    VolsamError
        If the sheet cannot be read, lacks a column `name` or `image`, or repeats a name.
    """
    path = data.get("sheet")
    if not path:
        return dict(data)
    samples = dict(data.get("samples") or {})
    for number, row in enumerate(_rows(Path(str(path))), start=2):
        name = row.pop("name", "")
        if not name:
            raise VolsamError(f"Line {number} of sheet {path} has no name; give every sample one.")
        if name in samples:
            raise VolsamError(
                f"Sample {name} of sheet {path} occurs twice (line {number}); rename one."
            )
        samples[name] = _nested(row)
    return {**data, "sheet": None, "samples": samples}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise VolsamError(f"Cannot read the sample sheet {path}: {reason}.") from None
    lines = text.splitlines()
    delimiter = "\t" if lines and "\t" in lines[0] else ","
    reader = csv.DictReader(lines, delimiter=delimiter, restkey="")
    columns = [str(name).strip() for name in reader.fieldnames or ()]
    for needed in ("name", "image"):
        if needed not in columns:
            raise VolsamError(
                f"The sample sheet {path} has no column {needed}; add it, and separate columns by commas "
                "or tabs."
            )
    reader.fieldnames = columns
    rows = []
    for row in reader:
        if not any(cell and str(cell).strip() for cell in row.values()):
            continue  # spreadsheets leave empty lines at the end
        if row.get("") or None in row.values():
            raise VolsamError(
                f"Line {reader.line_num} of sheet {path} has another number of cells than the "
                "heading; mend it."
            )
        rows.append({key: value.strip() for key, value in row.items() if key and value.strip()})
    return rows


def _nested(row: Mapping[str, str]) -> dict[str, Any]:
    sample: dict[str, Any] = {}
    for key, cell in row.items():
        *parents, last = key.split(".")
        target = sample
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = cell if key in TEXT else _number(cell)
    return sample


def _number(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell

"""results.csv: the numbers of many runs with their standard errors, a row a run.

It is an export of the runs' metrics.json, for studies whose runs are not kept. A row is known by the key of what was
trained, whatever the run is called. A metric whose column a file lacks has no value.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.evaluation.registry import METRICS
from utils.files import UserError, atomic_write
from utils.runs.store import Record
from utils.score.samplers import Sampling

Row = Mapping[str, str]
NAMES = ("key", "group", "baseline", "experiment", "run", "training_settings", "regularizer_settings")
DESCRIPTION = (*NAMES, "weight", "oracle", "training_seed", "epochs", "code_version")
NUMBERS = ("weight", "epochs", "training_seed")


def row_of(record: Record) -> dict[str, str]:
    """Return the row of an evaluated run."""
    row = {name: record.facts[name] for name in DESCRIPTION}
    row["forces"] = record.facts.get("forces", False)
    row |= {f"sampling_{name}": value for name, value in record.facts["sampling"].items()}
    for name, estimate in record.estimates.items():
        row[name] = f"{estimate.value:.6g}"
        row[f"{name}_standard_error"] = None if estimate.standard_error is None else f"{estimate.standard_error:.3g}"
    return {name: "" if value is None else str(value) for name, value in row.items()}


def read_results(path: Path, sampling: Sampling) -> dict[str, Row]:
    """Return the rows of a results file by key, none where there is no file. Raises UserError for another kind of file,
    for a value that is no number (naming its line), or for other sampling."""
    if not path.exists():
        return {}
    rows: dict[str, Row] = {}
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True, restval="")
        if missing := set(DESCRIPTION) - set(reader.fieldnames or ()):
            raise UserError(f"{path}: it is no table of results: it has no column {sorted(missing)[0]}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise UserError(f"{where}: it has more cells than the heading")
            for name, value in row.items():
                if name in METRICS or name in NUMBERS:
                    float(value or "nan")
            for name, wanted in sampling.model_dump().items():
                if (found := row.get(f"sampling_{name}")) != str(wanted):
                    raise UserError(f"{path}: {name} is {found} there and {wanted} now; give the same, or another file")
            rows[row["key"]] = row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: it is no table of results: {error}") from error
    except ValueError as error:  # of float()
        raise UserError(f"{where}: {name}: should be a number, given {value[:40]!r}") from error
    return rows


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, all columns of any of them, the description first."""
    rows = list(rows)
    columns = list(dict.fromkeys([*DESCRIPTION, *(name for row in rows for name in row)]))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

"""The comparison page: every metric, picture and video of an output folder on one HTML page that opens from disk. It
stands beside the folders of the experiments, has relative addresses, and loads nothing from the internet."""

import json
import math
import re
from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from PIL import Image

from utils.evaluation.registry import METRICS, Metric, describe
from utils.files import write_text
from utils.plots.video import FRAMES_PER_SECOND
from utils.reports.comparison import by_problem, compare, name_of, notes_on, read_records
from utils.reports.formatting import EXPLANATION, MISSING, half_width, with_interval
from utils.reports.live import LIVE, PAGES, TEMPLATE, write_live_of
from utils.runs.store import Record

VIDEO = "score_field.mp4"
# How far a number is from the best possible, up to a constant; a metric without a better direction is not compared.
FROM_BEST = {"lower": lambda v: v, "higher": lambda v: -v, "closer to 1": lambda v: abs(v - 1), "closer to 0": abs}
# Of pictures, in the order of the page; one that is not named there follows, under the name of its file.
CAPTIONS: dict[str, str] = json.loads((TEMPLATE / "captions.json").read_text(encoding="utf-8"))
PAGES.filters["breakable"] = lambda text: Markup(re.sub("([_.])", r"\1<wbr>", str(escape(text))))
PAGES.filters["as_written"] = lambda value: value if isinstance(value, str) else json.dumps(value)
Picture = namedtuple("Picture", "path width height caption")  # a PNG file: relative to the page; its pixels
Cell = namedtuple("Cell", "text value best")  # a number of a run; tables are sorted by `value`, None without one


@dataclass(frozen=True)
class Column:
    """One metric over all runs of a problem."""

    name: str
    about: Metric
    records: list[Record]

    @property
    def label(self) -> str:
        """What it is called; the number of a component is kept."""
        number = self.name.removeprefix(self.about.name).removeprefix("_")
        return f"{self.about.label} {number}".strip()

    def __getitem__(self, record: Record) -> Cell:
        if (estimate := record.estimates.get(self.name)) is None:
            return Cell(record.left_out.get(self.about.name, "no value"), None, False)
        text = with_interval(self.about.factor * estimate.value, self.about.factor * half_width(estimate))
        return Cell(text, estimate.value, record.competes and estimate.value in self._best())

    def _best(self) -> list[float]:
        """Return the values of methods that are nearest to the best possible; none where nothing is compared."""
        values = [r.estimates[self.name].value for r in self.records if r.competes and self.name in r.estimates]
        values, distance = list(filter(math.isfinite, values)), FROM_BEST.get(self.about.better or "")
        if distance is None or len(values) < 2:
            return []
        return [value for value in values if distance(value) == min(map(distance, values))]


def write_page(output: Path, notes: Iterable[str] = ()) -> tuple[Path, list[str]]:
    """Write output/index.html about every output/<experiment>/<run>/metrics.json and output/sweeps/<name>/table.json;
    return its path, and a line on each file that cannot be read. Notes are what else a reader should know first."""
    problems: list[str] = []
    records = read_records(output, problems)
    page = PAGES.get_template("page.html").render(
        records=records,
        number_of=lambda record: records.index(record) + 1,
        sections=[(name_of(group[0]), group, _columns(group)) for group in by_problem(records)],
        comparisons=find_pictures(output, output, problems),
        sweeps=read_sweeps(output, problems),
        pictures={record.folder: find_pictures(record.folder, output, problems) for record in records},
        videos={r.folder: path.relative_to(output).as_posix() for r in records if (path := r.folder / VIDEO).is_file()},
        video_name=VIDEO,
        frames_per_second=FRAMES_PER_SECOND,
        sampling=_grouped(records, _sampling),
        versions=_grouped(records, lambda record: record.facts["code_version"]),
        explanation=EXPLANATION,
        missing=MISSING,
        live=(output / LIVE).is_file(),
        notes=[*notes, *(note for group in by_problem(records) for note in notes_on(group))],
        problems=problems,
    )
    write_text(output / "index.html", page)
    return output / "index.html", problems


def write_reports(output: Path, notes: Iterable[str] = ()) -> list[str]:
    """Write the comparison and the page of everything in a folder, print the table and where they are, and return a
    line on each thing that is left out."""
    table, problems = compare(output)
    write_live_of(read_records(output, []), output)
    page, left_out = write_page(output, notes)
    print(f"\n{table}\n\nPictures, videos and numbers: {output}\nOpen this first: {page.resolve()}")
    return list(dict.fromkeys([*problems, *left_out]))


def _columns(records: list[Record]) -> list[Column]:
    """Return the metrics that any of the runs has, or has not for a reason, in the order of the registry."""
    names = [name for record in records for name in record.estimates]
    names += [name for record in records for name in record.left_out]
    columns = [Column(name, about, records) for name in dict.fromkeys(names) if (about := describe(name))]
    return sorted(columns, key=lambda column: list(METRICS).index(column.about.name))


def _sampling(record: Record) -> str:
    number = record.facts["network_evaluations_per_sample"]
    settings = record.facts["sampling"] | {"network evaluations per sample": number}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def find_pictures(folder: Path, output: Path, problems: list[str]) -> list[Picture]:
    """Return the PNG files of a folder, in the order of the page. What is not one is added to `problems`."""
    order, pictures = [*CAPTIONS], []
    paths = [(path, re.sub(r"_\d+$", "", path.stem)) for path in folder.glob("[!.]*.png")]
    for path, kind in sorted(paths, key=lambda p: (order.index(p[1]) if p[1] in order else 99, p[0].stem)):
        try:
            with Image.open(path) as image:
                caption = CAPTIONS.get(kind, path.stem.replace("_", " ").capitalize())
                pictures.append(Picture(path.relative_to(output).as_posix(), *image.size, caption))
        except (OSError, ValueError) as error:
            problems.append(f"{path.relative_to(output)}: {getattr(error, 'strerror', None) or error}")
    return pictures


def read_sweeps(output: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return title, tables and pictures of every sweep found, by name. What is unreadable is added to `problems`."""
    sweeps = []
    for path in sorted(output.glob("sweeps/*/table.json")):
        try:
            content = json.loads(path.read_bytes())
            about = {"title": content["title"], "tables": content["tables"]}
            sweeps.append(about | {"pictures": find_pictures(path.parent, output, problems)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path.relative_to(output)}: {error}")
    return sweeps


def _grouped(records: list[Record], key: Callable[[Record], str]) -> dict[str, list[str]]:
    return {common: [r.title for r in records if key(r) == common] for common in map(key, records)}

"""The comparison page: every metric, picture and video of an output folder on one HTML page that opens from disk.

The page is one file beside the folders of the experiments, which it refers to by relative addresses. It loads nothing
from the internet.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from utils.evaluation.estimates import Estimate
from utils.evaluation.registry import METRICS, Metric, describe
from utils.files import atomic_write
from utils.plots.video import FRAMES_PER_SECOND
from utils.reports.comparison import by_problem, compare, name_of, read_records
from utils.reports.formatting import EXPLANATION, MISSING, half_width, with_interval
from utils.runs.store import Record

TEMPLATE = Path(__file__).parent / "template"
VIDEO = "score_field.mp4"
DISTANCE_FROM_BEST = {
    "lower": lambda value: value,
    "higher": lambda value: -value,
    "closer to 1": lambda value: abs(value - 1),
    "closer to 0": abs,
}
CAPTIONS = {  # in the order of the page; a picture that is not named here follows, under the name of its file
    "weights": "Means over seeds against the weight; bands, and the grey stripe of no regularizer, are 95 % intervals",
    "marginal_distribution": "The exact distribution at five times: its density on the torus, and the marginal of one "
    "coordinate",
    "score_error_comparison": "Error of the score against time",
    "residual_comparison": "Residual of the score's Fokker-Planck equation against time",
    "consistency_comparison": "Consistency gap against time: at uniform points the exact score's is not zero, since "
    "the sampler's steps are finite; the other two panes show the squared difference to it",
    "drift_comparison": "Along the sampler: how far the samples' log-density is from that of exact samples, and the "
    "share of samples that are far from every mode",
    "samples_comparison": "Samples on the torus; a cross is a stray",
    "learning_curves": "Learning curves",
    "samples": "Samples on the torus and about the first modes; a cross is a stray",
    "radial_distribution": "Distances of the samples from their nearest mode: histogram, exact distribution, and what "
    "this sampler reaches with the exact score (dashed)",
    "score_error": "Error of the score against time, beside the size of the score",
    "maps": "The size of the score over the torus: the model's, the exact one's, and that of the error",
}


@dataclass(frozen=True)
class Picture:
    """A PNG file: its address relative to the page, its size in pixels, and what it shows."""

    url: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Cell:
    """One number of one run: its text, and the value by which a table is sorted, if there is one."""

    text: str
    value: float | None
    best: bool


@dataclass(frozen=True)
class Column:
    """One metric over all runs of a problem."""

    name: str
    about: Metric
    records: tuple[Record, ...]

    @property
    def label(self) -> str:
        """What it is called; the number of a component is kept."""
        number = self.name.removeprefix(self.about.name).removeprefix("_")
        return f"{self.about.label} {number}".strip()

    def __getitem__(self, record: Record) -> Cell:
        """Return the cell of a run."""
        estimate = record.estimates.get(self.name)
        if estimate is None:
            return Cell(record.left_out.get(self.about.name, "no value"), None, False)
        factor = self.about.factor
        text = with_interval(factor * estimate.value, factor * half_width(estimate))
        best = self._distance(record, estimate)
        others = [self._distance(r, r.estimates[self.name]) for r in self.records if self.name in r.estimates]
        known = [distance for distance in others if distance is not None]
        return Cell(text, estimate.value, best is not None and len(known) > 1 and best == min(known))

    def _distance(self, record: Record, estimate: Estimate) -> float | None:
        distance = DISTANCE_FROM_BEST.get(self.about.better or "")
        finite = abs(estimate.value) < float("inf")
        return distance(estimate.value) if distance and finite and record.competes else None


def write_page(output: Path, notes: Iterable[str] = ()) -> tuple[Path, list[str]]:
    """Write output/index.html about every output/<experiment>/<run>/metrics.json; return its path, and a line on each
    file that cannot be read, which the page names as well.

    Notes are what else a reader should know first. The sweeps are those of output/sweeps/<name>/table.json.
    """
    problems: list[str] = []
    records = read_records(output, problems)
    notes = [*notes, *(_note(record) for record in records if record.facts["checkpoint"] not in (None, "best.ckpt"))]
    sections, numbers = [], {id(record): number for number, record in enumerate(records, 1)}
    for group in by_problem(records):
        names = list(dict.fromkeys(name for record in group for name in record.estimates))
        names += [name for name in dict.fromkeys(n for record in group for n in record.left_out) if name not in names]
        columns = [Column(name, about, tuple(group)) for name in names if (about := describe(name))]
        columns.sort(key=lambda column: list(METRICS).index(column.about.name))
        sections.append(
            {
                "name": name_of(group[0]),
                "records": group,
                "headline": [column for column in columns if column.about.headline],
                "others": [column for column in columns if not column.about.headline],
            }
        )
    comparisons, sweeps = find_pictures(output, output, problems), read_sweeps(output, problems)
    pictures = {id(record): find_pictures(record.folder, output, problems) for record in records}
    page = (
        _environment()
        .get_template("page.html")
        .render(
            records=records,
            number_of=lambda record: numbers[id(record)],
            sections=sections,
            comparisons=comparisons,
            pictures=lambda record: pictures[id(record)],
            video=lambda record: _url(path, output) if (path := record.folder / VIDEO).is_file() else None,
            video_name=VIDEO,
            frames_per_second=FRAMES_PER_SECOND,
            sampling=_grouped((_sampling(record), record.title) for record in records),
            versions=_grouped((record.facts["code_version"], record.title) for record in records),
            sweeps=sweeps,
            explanation=EXPLANATION,
            missing=MISSING,
            notes=notes,
            problems=problems,
            style=Markup((TEMPLATE / "style.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATE / "script.js").read_text(encoding="utf-8")),
        )
    )
    with atomic_write(output / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return output / "index.html", problems


def write_reports(output: Path, notes: Iterable[str] = ()) -> list[str]:
    """Write the comparison and the page of everything in a folder, print the table and where they are, and return a
    line on each thing that is left out."""
    table, problems = compare(output)
    page, left_out = write_page(output, notes)
    print(f"\n{table}\n\nPictures, videos and numbers: {output}\nOpen this first: {page.resolve()}")
    return list(dict.fromkeys([*problems, *left_out]))


def _note(record: Record) -> str:
    return f"{record.title}: best.ckpt is damaged or missing, these are the weights of the last epoch"


def _sampling(record: Record) -> str:
    settings = record.facts["sampling"] | {
        "network evaluations per sample": record.facts["network_evaluations_per_sample"]
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def find_pictures(folder: Path, output: Path, problems: list[str]) -> list[Picture]:
    """Return the PNG files of a folder, in the order of the page. What is not one is added to `problems`."""
    order, pictures = list(CAPTIONS), []
    paths = [path for path in folder.glob("*.png") if not path.name.startswith(".")]
    for path in sorted(paths, key=lambda p: (order.index(_kind(p)) if _kind(p) in order else 99, p.stem)):
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, ValueError) as error:
            problems.append(f"{path.relative_to(output)}: {getattr(error, 'strerror', None) or error}")
            continue
        caption = CAPTIONS.get(_kind(path), path.stem.replace("_", " ").capitalize())
        pictures.append(Picture(_url(path, output), width, height, caption))
    return pictures


def _kind(path: Path) -> str:
    return re.sub(r"_\d+$", "", path.stem)


def read_sweeps(output: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return title, tables and pictures of every sweep found, by name. What is unreadable is added to `problems`."""
    sweeps = []
    for path in sorted(output.glob("sweeps/*/table.json")):
        try:
            content = json.loads(path.read_bytes())
            sweep = {"title": content["title"], "tables": content["tables"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(f"{path.relative_to(output)}: {error}")
            continue
        sweeps.append(sweep | {"pictures": find_pictures(path.parent, output, problems)})
    return sweeps


def _url(path: Path, output: Path) -> str:
    return quote(path.relative_to(output).as_posix())


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, label in pairs:
        groups.setdefault(key, []).append(label)
    return groups


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = lambda text: Markup(re.sub("([_.])", r"\1<wbr>", str(escape(text))))
    environment.filters["as_written"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    return environment

"""The comparison page: every metric, picture and video in an output folder on one HTML page that opens from disk.

The page is one file beside the folders of the experiments, which it refers to by relative addresses. It asks nothing of
the network. What it shows stands in each run's metrics.json; what a file leaves out, the page leaves out.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from utils.evaluation.registry import HEADLINE
from utils.files import replacing
from utils.plots.video import FRAMES_PER_SECOND
from utils.runs.loading import ANALYTICAL, FORMAT_VERSION

PAGE = Path(__file__).parent / "template"
VIDEO = "score_field.mp4"
BASELINE = "no_regularizer"
COLUMNS = (*HEADLINE, "width_ratio", "radial_ks")  # of the large table
WORDS = {"kl": "KL", "ode": "ODE", "w2": "W2", "ks": "KS", "fp": "Fokker-Planck"}
DISTANCE_FROM_BEST = {
    "lower": lambda value: value,
    "higher": lambda value: -value,
    "closer to 1": lambda value: abs(value - 1),
    "closer to 0": abs,
}
FIGURES = {  # in the order of the page; a picture that is not named here follows, under the name of its file
    "weights": "Means over seeds against the weight; bands, and the grey stripe of no regularizer, are 95 % intervals",
    "marginal_distribution": "The exact law at five times: its density on the torus, and the marginal of one atom",
    "score_error_comparison": "Error of the score against time, all experiments",
    "residual_comparison": "Residual of the score's Fokker-Planck equation against time, all experiments",
    "consistency_comparison": "Consistency gap against time, all experiments: at uniform points, where that of the "
    "exact score is not zero, since the sampler's steps are finite; and less that of the exact score",
    "samples_comparison": "Samples of all experiments on the torus; a cross is a stray",
    "learning_curves": "Learning curves of all experiments",
    "samples": "Samples on the torus and about each mode; a cross is a stray",
    "radial_distribution": "Distances of the samples from their nearest mode: histogram, exact law, and what this "
    "sampler reaches with the exact score (dashed)",
    "score_error": "Error of the score against time, beside the size of the score",
    "maps": "The size of the score over the torus: the model's, the exact one's, and that of the error",
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer file may say more than the page shows


class Metric(_Read):
    """One number of one run, as metrics.json has it; an interval is of 95 %, a reason says why there is no value."""

    value: float | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    number_of_points: int | None = None
    label: str | None = None
    unit: str | None = None
    definition: str | None = None
    source: str | None = None
    better: str | None = None
    reason: str | None = None

    @property
    def missing(self) -> str | None:
        """Why there is no number to show, or None where there is one."""
        if self.value is None:
            return self.reason or "no value"
        return None if math.isfinite(self.value) else "not finite"

    @property
    def shown_unit(self) -> str:
        """The unit of the texts: shares of samples are recorded as fractions and shown in percent."""
        return "%" if self.unit == "fraction" else self.unit or ""

    @property
    def factor(self) -> float:
        """What the value is multiplied with to be in that unit."""
        return 100.0 if self.unit == "fraction" else 1.0

    @property
    def texts(self) -> tuple[str, str]:
        """The value and its standard error as text, to two digits of the error; nothing for an error that is not."""
        if self.missing:
            return "\N{EN DASH}", ""
        return format_estimate(self.factor * self.value, self.standard_error and self.factor * self.standard_error)

    @property
    def range(self) -> str:
        """The interval as text, or nothing."""
        if self.missing or not self.interval or not all(map(math.isfinite, self.interval)):
            return ""
        if self.interval[0] == self.interval[1]:
            return ""  # all draws are the same: it says nothing
        return "95 %: {:.3g} to {:.3g}".format(*(self.factor * end for end in self.interval))


class Entry(_Read):
    """One run, as metrics.json has it."""

    experiment: str
    run: str
    oracle: bool = False
    code_version: str = "unknown"
    checkpoint: str | None = None
    sampling: dict[str, Any] = {}
    network_evaluations_per_sample: int | None = None
    wall_clock_seconds: float | dict[str, float] | None = None  # by part, with their total
    configuration_difference: dict[str, tuple[Any, Any]] | None = None
    metrics: dict[str, Metric] = {}
    left_out: dict[str, str] = {}  # metrics without a value, and why
    folder: Path

    @property
    def label(self) -> str:
        """What the run is called on the page."""
        return self.experiment if self.run == "run1" else f"{self.experiment}, {self.run}"

    @property
    def control(self) -> bool:
        """Whether this is the exact score."""
        return self.experiment == ANALYTICAL

    @property
    def competes(self) -> bool:
        """Whether the run is a method: neither the control nor told the exact score."""
        return not (self.control or self.oracle)

    @property
    def seconds(self) -> float | None:
        """How long the analysis took."""
        seconds = self.wall_clock_seconds
        return seconds.get("total", sum(seconds.values())) if isinstance(seconds, dict) else seconds

    @property
    def settings(self) -> str:
        """How its samples were drawn, as text."""
        settings = self.sampling | {"network_evaluations_per_sample": self.network_evaluations_per_sample}
        return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if value is not None)


@dataclass(frozen=True)
class Column:
    """One metric over all runs."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def label(self) -> str:
        """The metric's name as it is read."""
        return self.about.label or " ".join(WORDS.get(word, word) for word in self.name.split("_"))

    @cached_property
    def about(self) -> Metric:
        """Some run's entry, for unit, definition, source and direction."""
        return next(entry.metrics[self.name] for entry in self.entries if self.name in entry.metrics)

    def __getitem__(self, entry: Entry) -> Metric:
        """Return the metric of a run, without a value where the run has none."""
        return entry.metrics.get(self.name) or Metric(reason=entry.left_out.get(self.name))

    @cached_property
    def _best(self) -> float | None:
        distances = [d for entry in self.entries if (d := self._distance(entry)) is not None]
        return min(distances) if len(distances) > 1 else None

    def _distance(self, entry):
        distance, metric = DISTANCE_FROM_BEST.get(self.about.better), self[entry]
        return None if distance is None or metric.missing or not entry.competes else distance(metric.value)

    def is_best(self, entry: Entry) -> bool:
        """Return whether no other method does better, where there is another one."""
        return self._best is not None and self._distance(entry) == self._best


@dataclass(frozen=True)
class Picture:
    """A PNG file: its address relative to the page, its size in pixels, and what it shows."""

    url: str
    width: int
    height: int
    caption: str


def write_report(output: Path, notes: Iterable[str] = ()) -> tuple[Path, list[str]]:
    """Write output/index.html about every output/<experiment>/<run>/metrics.json; return its path, and a sentence for
    each file that it leaves out because it cannot be read, which it names as well.

    Notes are what else a reader should know first, in sentences. The sweeps are those of
    output/sweeps/<name>/table.json.
    """
    problems: list[str] = []
    entries, sweeps = read_entries(output, problems), read_sweeps(output, problems)
    names = list(dict.fromkeys(name for entry in entries for name in entry.metrics))
    damaged = [entry.label for entry in entries if entry.checkpoint not in (None, "best.ckpt")]
    notes = [
        *notes,
        *(f"{label}: best.ckpt is damaged or missing, these are the weights of the last epoch" for label in damaged),
    ]
    headline = [name for name in COLUMNS if name in names] or names[: len(COLUMNS)]
    page = (
        _environment()
        .get_template("page.html")
        .render(
            entries=entries,
            headline=[Column(name, tuple(entries)) for name in headline],
            others=[Column(name, tuple(entries)) for name in names if name not in headline],
            comparisons=find_pictures(output, output, problems),
            pictures=[find_pictures(entry.folder, output, problems) for entry in entries],
            videos=[_url(path, output) if (path := entry.folder / VIDEO).is_file() else None for entry in entries],
            video_name=VIDEO,
            frames_per_second=FRAMES_PER_SECOND,
            sampling=_grouped((entry.settings, entry.label) for entry in entries),
            versions=_grouped((entry.code_version, entry.label) for entry in entries),
            sweeps=sweeps,
            notes=notes,
            problems=problems,
            style=Markup((PAGE / "style.css").read_text(encoding="utf-8")),
            script=Markup((PAGE / "script.js").read_text(encoding="utf-8")),
        )
    )
    with replacing(output / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return output / "index.html", [f"Left out of the page: {problem}" for problem in problems]


def read_entries(output: Path, problems: list[str]) -> list[Entry]:
    """Return every run found: the control, the baseline, then by name. What cannot be read is added to `problems`."""
    entries = []
    for path in output.glob("*/*/metrics.json"):
        try:
            entries.append(_read_entry(path))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{path.relative_to(output)}: {_reason(error)}")
    problems.sort()
    return sorted(entries, key=lambda e: (not e.control, e.experiment != BASELINE, e.experiment, e.run))


class Sweep(_Read):
    """The table of a sweep, rows of text by regime, and its pictures."""

    title: str
    headings: list[str]
    regimes: dict[str, list[list[str]]]
    pictures: list[Picture] = []


def read_sweeps(output: Path, problems: list[str]) -> list[Sweep]:
    """Return every sweep found, by name. What cannot be read is added to `problems`."""
    sweeps = []
    for path in sorted(output.glob("sweeps/*/table.json")):
        try:
            sweep = Sweep.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            problems.append(f"{path.relative_to(output)}: {_reason(error)}")
            continue
        sweeps.append(sweep.model_copy(update={"pictures": find_pictures(path.parent, output, problems)}))
    return sweeps


def _read_entry(path):
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    version = content.get("format_version", 1)  # the first had no number
    if version not in range(1, FORMAT_VERSION + 1):
        text = f"it has format {version}, and this version of the code reads formats up to {FORMAT_VERSION}"
        raise ValueError(f"written by a newer version of the code: {text}")
    names = {"experiment": path.parent.parent.name, "run": path.parent.name}
    return Entry.model_validate(names | content | {"folder": path.parent})


def _reason(error):
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return getattr(error, "strerror", None) or str(error)


def find_pictures(folder: Path, output: Path, problems: list[str]) -> list[Picture]:
    """Return the PNG files of a folder, in the order of the page. What is not one is added to `problems`."""
    order, pictures = list(FIGURES), []
    for path in sorted(folder.glob("*.png"), key=lambda p: (order.index(p.stem) if p.stem in order else 99, p.stem)):
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            problems.append(f"{path.relative_to(output)}: {_reason(error)}")
            continue
        caption = FIGURES.get(re.sub(r"_\d+$", "", path.stem), path.stem.replace("_", " ").capitalize())
        pictures.append(Picture(_url(path, output), width, height, caption))
    return pictures


def format_estimate(value: float, error: float | None = None) -> tuple[str, str]:
    """Return value and standard error as text: to two digits of the error, or the value to four where there is none.

    Both have the same number of decimals and the same power of ten. An error of zero, or none, is an empty text.
    """
    error = error if error is not None and math.isfinite(error) and error > 0 else 0.0
    size = max(abs(value), error)
    magnitude = math.floor(math.log10(size)) if size else 0
    power = 0 if -4 <= magnitude <= 4 else max(magnitude, -300)  # 10**power is to be a float
    value, error, magnitude = value / 10.0**power, error / 10.0**power, magnitude - power
    digits = min(1 - math.floor(math.log10(error)), 4 - magnitude) if error else 3 - magnitude
    decimals = max(digits, 0) if value or error else 0
    times = f" \N{MULTIPLICATION SIGN} 10{str(power).translate(SUPERSCRIPTS)}" if power else ""
    number, spread = f"{abs(value):.{decimals}f}", f"{error:.{decimals}f}{times}" if error else ""
    if error and not float(f"{error:.{decimals}f}"):
        spread = f"{error * 10.0**power:.1g}"  # far smaller than the digits that are shown
    sign = "\N{MINUS SIGN}" if value < 0 and float(number) else ""
    return f"{sign}{number}{times}", spread


def _url(path, output):
    return quote(path.relative_to(output).as_posix())


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, label in pairs:
        groups.setdefault(key, []).append(label)
    return groups


def _environment():
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = lambda text: Markup(re.sub("([_.])", r"\1<wbr>", str(escape(text))))
    environment.filters["as_written"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    return environment

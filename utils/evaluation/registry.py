"""The registry of metrics, and what they are computed from.

A metric is a function of a `Subject` that returns an `Estimate`, or one and its curve against t, or a list of them, one
a component of x. Its definition is the first paragraph of its docstring; the decorator `metric` gives its label, unit,
source and better direction. From that alone it appears in all tables, in metrics.json, results.csv and on the page.
"""

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from utils.evaluation.estimates import Curve, Estimate, NoValue
from utils.randomness import keyed_generator
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

Result = Estimate | tuple[Estimate, Curve] | list[Estimate]
TOY, SONG = "this project", "Song et al. 2021"
Texts = Mapping[str, str]
NOTHING: Texts = {"": ""}
MIN_POINTS = 30  # of fewer no mean is given
WHERE = {  # at which points a score is compared: ending of a metric's name -> its definition
    "noised": "points of the noisy marginal p_t, t uniform on [0,1]",
    "uniform": "points uniform on the torus, t uniform on [0,1]",
}
PER_BIN = {"gradient part": 2_000, **dict.fromkeys(("score error", "excess", "gap"), 500), "field": 150}
PER_BIN |= {"circulation": 20, "data": 20}


@dataclass(frozen=True)
class Effort:
    """Numbers of points: two to four seconds on one core, with errors that are small beside those of a training."""

    path_kl: int = 20_000
    per_bin: Mapping[str, int] = field(default_factory=PER_BIN.copy)
    transport: int = 5_000
    ode_points: int = 500
    ode_samples: int = 1_000
    memory: int = 60


@dataclass(eq=False)
class Subject:
    """What is evaluated: a network and its samples, beside the exact score of the same problem. Random numbers depend
    on `seed` and the purpose alone, so all networks are compared at the same points."""

    network: ScoreNetwork
    truth: AnalyticalScoreNetwork
    training_set: Tensor
    states: Mapping[float, Tensor]  # samples, (sample, atom, dimension), at times along the sampler, 0 at the end
    seed: int
    effort: Effort = field(default_factory=Effort)
    memory: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.problem, self.schedule, self.samples = self.truth.problem, self.truth.schedule, self.states[0.0]
        self.end_sigma = self.schedule.sigma(torch.zeros((), dtype=torch.float64))
        self.precise = copy.deepcopy(self.network).double().requires_grad_(False)

    def generator(self, purpose: str) -> Generator:
        """Return the random numbers of one purpose."""
        return keyed_generator(self.seed, purpose)


@dataclass(frozen=True)
class Metric:
    """The description of one number; `better` is None for what is neither good nor bad, such as a control."""

    name: str
    label: str
    definition: str
    headline: bool  # stands in the tables of the terminal, the page and sweeps
    compute: Callable[[Subject], Result]
    unit: str = ""  # empty for a dimensionless number; a fraction is shown in percent
    source: str = TOY
    better: Literal["lower", "higher", "closer to 1", "closer to 0"] | None = None
    paired: Literal["ratio", "difference"] | None = None  # how sweeps compare it with the baseline, seed by seed

    shown_unit = property(lambda metric: "%" if metric.unit == "fraction" else metric.unit)
    factor = property(lambda metric: 100.0 if metric.unit == "fraction" else 1.0)  # takes a value to shown_unit

    @property
    def heading(self) -> str:
        """What a column is called: the label without its details, and a short unit."""
        unit = self.shown_unit if len(self.shown_unit) < 8 else ""
        return _joined(", ", self.label.partition(",")[0], unit)


METRICS: dict[str, Metric] = {}


def metric(
    label: str, *, headline: bool | str = False, where: Texts = NOTHING, variants: Texts = NOTHING, **about: Any
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Register the decorated function as a metric under its own name; `about` holds other fields of `Metric`.
    With `where` there is one metric for each kind of points (`name_noised`, `name_uniform`), and the function is called
    with the kind; `headline` may name the one kind to show. With `variants` there is one for each of them as well:
    its name follows that of the function, and its meaning fills the {} of the docstring."""

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        function = torch.no_grad()(function)
        text = " ".join((function.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
        for variant, kind in itertools.product(variants, where):
            given = {key: value for key, value in (("variant", variant), ("where", kind)) if value}
            name = _joined("_", function.__name__, *given.values())
            full_label = _joined(", ", label.format(variant.replace("_", " ")), kind)
            definition = _joined("; ", text.format(variants[variant]), where[kind])
            shown = headline in (True, _joined("_", *given.values()) or None)
            METRICS[name] = Metric(name, full_label, definition, shown, functools.partial(function, **given), **about)
        return function

    return register


def _joined(separator: str, *parts: str) -> str:
    return separator.join(filter(None, parts))


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a function of a subject once, however many metrics ask for it; a NoValue is remembered as well."""

    @functools.wraps(function)
    def once(subject: Subject, *arguments: Any) -> Any:
        key = (function, arguments)
        if key not in subject.memory:
            try:
                subject.memory[key] = function(subject, *arguments)
            except NoValue as reason:
                subject.memory[key] = reason
        if isinstance(result := subject.memory[key], NoValue):
            raise result
        return result

    return once


@dataclass
class Evaluation:
    """Estimates and curves against t by name, and why others have no value."""

    estimates: dict[str, Estimate] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate(subject: Subject, progress: bool = False) -> Evaluation:
    """Return every registered metric of a subject; `progress` shows a bar, where there is a terminal."""
    evaluation = Evaluation()
    for name, one in tqdm(METRICS.items(), desc="  numbers", leave=False, disable=None if progress else True):
        try:
            result = one.compute(subject)
        except (NoValue, ArithmeticError) as reason:
            evaluation.skipped[name] = str(reason)
            continue
        if isinstance(result, list):
            evaluation.estimates |= {f"{name}_{k}": estimate for k, estimate in enumerate(result, 1)}
        elif isinstance(result, Estimate):
            evaluation.estimates[name] = result
        else:
            evaluation.estimates[name], evaluation.curves[name] = result
    return evaluation


def complete(names: Iterable[str]) -> bool:
    """Return whether every registered metric is among names of estimates."""
    return METRICS.keys() <= {about.name for about in map(describe, names) if about}


def describe(name: str) -> Metric | None:
    """Return the metric of this name, or None; the name may end with the number of a component."""
    base, _, component = name.rpartition("_")
    return METRICS.get(name) or (METRICS.get(base) if component.isdecimal() else None)

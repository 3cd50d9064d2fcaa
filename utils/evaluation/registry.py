"""The registry of metrics, and what they are computed from.

A metric is one function of a `Subject` that returns an `Estimate`, or an `Estimate` and its curve against t, or a list
of estimates, one a component of x. Its definition is the first paragraph of the function's docstring; the decorator
`metric` says what it is called, in which unit, who proposed it, and which direction is better. From that alone it
appears in metrics.json, on the page, in the tables of the terminal and of sweeps, and in results.csv.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Generator, Tensor
from tqdm import tqdm

from utils.evaluation.estimates import Curve, Estimate, NoValue
from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule
from utils.randomness import keyed_generator
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

Better = Literal["lower", "higher", "closer to 1", "closer to 0"]
Result = Estimate | tuple[Estimate, Curve] | list[Estimate]
TOY, SONG = "this project", "Song et al. 2021"
WHERE = {  # at which points a score is compared: ending of a metric's name -> its definition
    "noised": "points of the noisy marginal p_t, t uniform on [0,1]",
    "uniform": "points uniform on the torus, t uniform on [0,1]",
}


@dataclass(frozen=True)
class Effort:
    """Numbers of points: two to four seconds on one core, with errors that are small against what training does."""

    path_kl: int = 20_000
    per_bin: Mapping[str, int] = field(
        default_factory=lambda: {"score error": 500, "excess": 500, "field": 150, "gap": 500, "circulation": 20}
    )
    transport: int = 5_000
    ode_points: int = 300
    ode_samples: int = 500
    memory: int = 60


class Subject:
    """What is evaluated: a network and its samples, beside the exact score of the same problem.

    `states` holds the samples, (sample, atom, dimension), at times along the sampler, 0 at the end. Random numbers
    depend on `seed` and the purpose alone, so all networks are compared at the same points.
    """

    def __init__(
        self,
        network: ScoreNetwork,
        truth: AnalyticalScoreNetwork,
        training_set: Tensor,
        states: Mapping[float, Tensor],
        seed: int,
        effort: Effort | None = None,
    ):
        self.network, self.truth, self.training_set, self.states = network, truth, training_set, states
        self.seed, self.effort = seed, effort or Effort()
        self.memory: dict[Any, Any] = {}

    @property
    def problem(self) -> Law:
        """The law of the data."""
        return self.truth.problem

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        return self.truth.schedule

    @property
    def samples(self) -> Tensor:
        """The samples at the end of the sampler, (sample, atom, dimension)."""
        return self.states[0.0]

    @functools.cached_property
    def precise(self) -> ScoreNetwork:
        """A copy of the network in float64 whose weights are fixed."""
        return copy.deepcopy(self.network).double().requires_grad_(False)

    def generator(self, purpose: str) -> Generator:
        """Return the random numbers of one purpose."""
        return keyed_generator(self.seed, purpose)


@dataclass(frozen=True)
class Metric:
    """The description of one number; `better` is None for what is neither good nor bad, such as a control."""

    name: str
    label: str
    definition: str
    unit: str  # empty for a dimensionless number; a fraction is shown in percent
    source: str
    better: Better | None
    headline: bool  # stands in the tables of the terminal, the page and sweeps
    paired: bool  # sweeps show its difference to the baseline as well
    compute: Callable[[Subject], Result]

    @property
    def factor(self) -> float:
        """What a value is multiplied with to be in the unit that is shown."""
        return 100.0 if self.unit == "fraction" else 1.0

    @property
    def shown_unit(self) -> str:
        """The unit that is shown: shares are recorded as fractions and shown in percent."""
        return "%" if self.unit == "fraction" else self.unit

    @property
    def heading(self) -> str:
        """What a column is called: the label without its details, and a short unit."""
        unit = self.shown_unit if len(self.shown_unit) < 8 else ""
        return ", ".join(filter(None, (self.label.partition(",")[0], unit)))


METRICS: dict[str, Metric] = {}


def metric(
    label: str,
    *,
    unit: str = "",
    source: str = TOY,
    better: Better | None = None,
    headline: bool | str = False,
    paired: bool = False,
    where: Mapping[str, str] | None = None,
    variants: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Register the decorated function as a metric under its own name.

    With `where` there is one metric for each kind of points (`name_noised`, `name_uniform`), and the function is called
    with the kind; `headline` may name the one that is. With `variants` there is one for each of them as well:
    its name follows that of the function, and its meaning fills the {} of the docstring.
    """

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        definition = " ".join((function.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
        for variant, meaning in (variants or {"": ""}).items():
            for kind, points in (where or {"": ""}).items():
                ending = "_".join(filter(None, (variant, kind)))
                name = "_".join(filter(None, (function.__name__, ending)))
                METRICS[name] = Metric(
                    name=name,
                    label=", ".join(filter(None, (label.format(variant.replace("_", " ")), kind))),
                    definition="; ".join(filter(None, (definition.format(meaning), points))),
                    unit=unit,
                    source=source,
                    better=better,
                    headline=headline in (True, ending or None),
                    paired=paired,
                    compute=functools.partial(function, **_given(variant=variant, where=kind)),
                )
        return function

    return register


def _given(**arguments: str) -> dict[str, str]:
    return {name: value for name, value in arguments.items() if value}


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a function of a subject once, however many metrics ask for it; also where it has no value."""

    @functools.wraps(function)
    def once(subject: Subject, *arguments: Any) -> Any:
        key = (function, arguments)
        if key not in subject.memory:
            try:
                subject.memory[key] = function(subject, *arguments)
            except NoValue as reason:
                subject.memory[key] = reason
        if isinstance(subject.memory[key], NoValue):
            raise subject.memory[key]
        return subject.memory[key]

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


def describe(name: str) -> Metric | None:
    """Return the metric of this name, or None; the name may end with the number of a component."""
    base, _, component = name.rpartition("_")
    return METRICS.get(name) or (METRICS.get(base) if component.isdecimal() else None)

"""All numbers of one network and its samples: how many points each takes, and how long it took.

The numbers of points make the whole about four seconds on one core, and the errors small against what training does.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from utils.evaluation import field_metrics as diagnostics
from utils.evaluation import sample_metrics as metrics
from utils.evaluation.estimates import BINS, Curve, Estimate, points_under_both_laws
from utils.randomness import keyed_generator
from utils.runs.loading import Configuration
from utils.score.networks import NARROW, MLPScoreNetwork, ScoreNetwork

PATH_KL_POINTS = 20_000
PER_BIN = {"score error": 500, "excess": 500, "field": 150, "gap": 500, "circulation": 20}  # points in each bin of t
TRANSPORT_SAMPLES = 5_000
ODE_POINTS, ODE_SAMPLES = 300, 500
MEMORY_TIMES, MEMORY_POINTS = (0.0, 0.1, 0.2, 0.3), 60  # early, or the training set and its law look alike


@dataclass
class Report:
    """What was found: estimates and curves against t by name, why others were left out, and the cost of each part."""

    estimates: dict[str, Estimate] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    evaluations: dict[str, int] = field(default_factory=dict)

    def add(self, scalars: Mapping[str, Estimate], curves: Mapping[str, Curve] | None = None, ending: str = "") -> None:
        """Take up numbers and curves whose names get an ending."""
        self.estimates |= {name + ending: estimate for name, estimate in scalars.items()}
        self.curves |= {name + ending: curve for name, curve in (curves or {}).items()}


def evaluate(
    network: ScoreNetwork,
    configuration: Configuration,
    states: Mapping[float, Tensor],
    seed: int,
    progress: bool = False,
) -> Report:
    """Return every number of a network and of its samples; states holds these at times along the sampler, 0 the end.

    `progress` shows a bar, where there is a terminal: the exact law of many atoms takes minutes.
    """
    report, problem = Report(), configuration.toy_problem
    truth, training_set = configuration.build_truth(), configuration.training_set()

    def draws(purpose: str) -> torch.Generator:
        return keyed_generator(seed, purpose)

    def count(_, arguments):
        nonlocal counted
        counted += len(arguments[0])

    counted, hook = 0, network.register_forward_pre_hook(count)
    parts = (
        ("score", lambda: _score(report, network, truth, draws)),
        ("field", lambda: _field(report, network, truth, draws)),
        ("ODE", lambda: _ode(report, network, truth, draws)),
        ("memorisation", lambda: _memorisation(report, network, truth, training_set, draws)),
        ("samples", lambda: _samples(report, states, truth, training_set, draws)),
    )
    for part, run in tqdm(parts, desc="  numbers", leave=False, disable=None if progress else True):
        began, counted = time.perf_counter(), 0
        run()
        report.seconds[part] = time.perf_counter() - began
        report.evaluations[part] = counted
    if isinstance(network, MLPScoreNetwork):  # its derivatives are carried forward without calling it
        report.evaluations["field"] += 2 * BINS * PER_BIN["field"]
    hook.remove()
    if problem.shape == (1, 1):
        report.skipped |= dict.fromkeys(("curl_noised", "curl_uniform"), "a field of one component has none")
    return report


def _score(report, network, truth, draws):
    report.estimates["path_kl"] = metrics.path_kl(network, truth, PATH_KL_POINTS, draws("path KL"))
    report.add(metrics.excess_loss(network, truth, PER_BIN["excess"], draws("excess")))
    for law, points in points_under_both_laws(truth, PER_BIN["score error"], draws("score error")).items():
        report.add(*metrics.score_error(network, truth, points), f"_{law}")
    for name in (f"score_error_{place}_ridges_{law}" for place in ("on", "off") for law in ("noised", "uniform")):
        if name not in report.estimates:
            report.skipped[name] = "no permutation ridges, or too few points on them"


def _field(report, network, truth, draws):
    precise = diagnostics.in_float64(network)
    for law, points in points_under_both_laws(truth, PER_BIN["field"], draws("field")).items():
        report.add(*diagnostics.field_numbers(precise, points.double()), f"_{law}")
    for law, points in points_under_both_laws(truth, PER_BIN["gap"], draws("gap points")).items():
        report.add(*diagnostics.consistency_gap(network, truth, points, law, draws(f"gap {law}")), f"_{law}")
    loops = diagnostics.circulations(network, truth.problem.shape, PER_BIN["circulation"], draws("circulation"))
    report.add({f"circulation_{k}": estimate for k, estimate in enumerate(loops, 1)})


def _ode(report, network, truth, draws):
    precise = diagnostics.in_float64(network)
    try:
        report.add(diagnostics.ode_likelihood(precise, truth, ODE_POINTS, ODE_SAMPLES, draws("ODE")))
    except FloatingPointError as error:
        report.skipped |= dict.fromkeys(("ode_kl", "ode_stray_fraction", "ode_norm"), str(error))


def _memorisation(report, network, truth, training_set, draws):
    times = torch.tensor([t for t in MEMORY_TIMES if truth.schedule.sigma(torch.tensor(t)) < NARROW])
    if len(times):
        share = metrics.memorisation(network, truth, training_set, times, MEMORY_POINTS, draws("memory"))
        report.estimates["memorisation"] = share
    else:
        report.skipped["memorisation"] = f"the noise is wider than {NARROW} at all times at which it is judged"


def _samples(report, states, truth, training_set, draws):
    problem, schedule, x = truth.problem, truth.schedule, states[0.0]
    sigma_0, distance = metrics.stationary_width(problem, schedule), metrics.distance_to_nearest_mode(x, problem)
    report.estimates["stray_fraction"] = metrics.stray_fraction(distance, sigma_0)
    ks, p_value = metrics.radial_law(distance, sigma_0, x[0].numel())
    report.add({"radial_ks": ks, "radial_p_value": p_value})
    cores = (distance <= metrics.STRAY_DISTANCE * sigma_0).sum() >= metrics.FEWEST
    if cores:
        report.estimates["width_ratio"] = metrics.width_ratio(x, problem, sigma_0)
        neighbours = metrics.nearest_neighbour_ratio(x, training_set, truth, draws("neighbours"))
        report.estimates["nearest_neighbour_ratio"] = neighbours
    else:
        report.skipped |= dict.fromkeys(("width_ratio", "nearest_neighbour_ratio"), "hardly a sample is near a mode")
    if cores and len(problem.assignments) > 1:
        share, p_value = metrics.mode_occupancy(x, problem, sigma_0)
        report.add({"mode_occupancy": share, "mode_occupancy_p_value": p_value})
    else:
        reason = "the law has a single mode, or hardly a sample is near one"
        report.skipped |= dict.fromkeys(("mode_occupancy", "mode_occupancy_p_value"), reason)
    n = min(TRANSPORT_SAMPLES, len(x))
    first, second = (problem.sample_noised(schedule.sigma(torch.zeros(n)), draws(f"exact {i}")) for i in (1, 2))
    report.add({"wasserstein_2": metrics.wasserstein_2(x[:n], first, problem)})
    report.add({"wasserstein_2_control": metrics.wasserstein_2(second, first, problem)})
    generator, times = draws("drift"), list(states)
    drifts = [metrics.law_drift(states[t], torch.tensor(t), truth, generator) for t in times]
    strays = [
        metrics.stray_fraction(metrics.distance_to_nearest_mode(states[t], problem), _width(truth, t)) for t in times
    ]
    report.add({"law_drift": drifts[times.index(0.0)]})
    report.add({}, {"law_drift": Curve.of(drifts, times), "stray_fraction": Curve.of(strays, times)})


def _width(truth, t):
    return truth.problem.effective_sigma(truth.schedule.sigma(torch.tensor(t))).item()

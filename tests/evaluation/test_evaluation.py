"""The row of numbers of a network: each is of what it says, and that of the exact score is known in advance."""

import itertools
import math

import pytest
import torch
from conftest import make_network
from utils.evaluation.evaluate import MEMORY_POINTS, MEMORY_TIMES, PATH_KL_POINTS, PER_BIN, TRANSPORT_SAMPLES, evaluate

from utils.evaluation import evaluate as evaluation
from utils.evaluation import field_metrics as diagnostics
from utils.evaluation import sample_metrics as metrics
from utils.evaluation.estimates import BINS, points_under_both_laws
from utils.physics.noise_schedule import time_grid
from utils.randomness import keyed_generator
from utils.reports.experiment import Sampling
from utils.runs.loading import ANALYTICAL, configure
from utils.score.networks import AnalyticalScoreNetwork, ScoreNetwork

SEED, STEPS = 3, 20
CONFIGURATION = configure(ANALYTICAL)
PROBLEM, SCHEDULE = CONFIGURATION.toy_problem, CONFIGURATION.noise_schedule
TRUTH = CONFIGURATION.build_truth()
LAWS = ("noised", "uniform")


class Wrong(ScoreNetwork):
    """Nine tenths of the exact score of a wider law: wrong in every number but the curl."""

    def __init__(self):
        super().__init__(SCHEDULE)
        self.exact = AnalyticalScoreNetwork(PROBLEM.model_copy(update={"sigma_d": 0.012}), SCHEDULE)

    def forward(self, x, t):
        return 0.9 * self.exact(x, t)


WRONG = Wrong()


def drawn(network, steps=STEPS, samples=2_000):
    sampling = Sampling(number_of_samples=samples, time_steps=steps, corrector_steps=0, start="uniform", seed=SEED)
    return sampling.draw(network, CONFIGURATION)


def draws(purpose):
    return keyed_generator(SEED, purpose)


def near(estimate, expected, errors=4.0):
    return abs(estimate.value - expected) <= errors * estimate.standard_error


@pytest.fixture(scope="module")
def exact():
    return evaluate(CONFIGURATION.build_truth(), CONFIGURATION, drawn(TRUTH), SEED)


@pytest.fixture(scope="module")
def states():
    return drawn(WRONG)


@pytest.fixture(scope="module")
def wrong(states):
    return evaluate(WRONG, CONFIGURATION, states, SEED)


# The exact score


def test_exact_score_has_no_error(exact):
    zero = ["path_kl", "excess_loss", "path_kl_from_loss", "path_kl_disagreement"]
    kinds = ("", "_relative", "_median", "_on_ridges", "_off_ridges")
    zero += [f"score_error{kind}_{law}" for kind in kinds for law in LAWS]
    zero += [f"consistency_excess_{law}" for law in LAWS]
    assert {name: exact.estimates[name][:2] for name in zero} == dict.fromkeys(zero, (0, 0))
    for name in (f"{of}_{law}" for of in ("score_error", "consistency_excess") for law in LAWS):
        assert set(exact.curves[name].value) == {0.0}
    assert exact.skipped == {}


def test_residual_and_curl_of_the_exact_score_are_rounding_of_float64(exact):
    """In float32 they are a hundred million times as large."""
    for form, law in itertools.product(diagnostics.FORMS, LAWS):
        for name in (f"residual_{form}_{law}", f"residual_{form}_median_{law}"):
            assert exact.estimates[name].value < 1e-11
        assert max(exact.curves[f"residual_{form}_{law}"].value) < 1e-10
    assert all(abs(exact.estimates[f"curl_{law}"].value) < 1e-12 for law in LAWS)


def test_numbers_of_the_exact_score_are_known_within_their_errors(exact):
    expected = {
        "ode_kl": 0,
        "ode_norm": 1,
        "circulation_1": 0,
        "circulation_2": 0,
        "consistency_gap_noised": 0,  # at uniform points the sampler's steps show
        "mode_occupancy": 1,
        "width_ratio": metrics.sampler_width_ratio(PROBLEM, SCHEDULE, time_grid(STEPS)),
    }
    assert {
        name: exact.estimates[name] for name, value in expected.items() if not near(exact.estimates[name], value)
    } == {}
    assert exact.estimates["memorisation"].value == 1
    assert exact.estimates["ode_stray_fraction"].value == 0
    assert exact.estimates["stray_fraction"].value < 1e-3 and exact.estimates["mode_occupancy_p_value"].value > 1e-3


def test_what_the_sampler_costs_the_exact_score_is_its_width_and_shrinks_with_its_steps():
    """Width w for 1 in two components: the drift is 1 - w^2; the laws of r are furthest apart at the r where their
    densities cross, r^2 = 4 w^2 ln w / (w^2 - 1)."""
    n, found = 20_000, []
    for steps in (20, 50, 100):
        w = metrics.sampler_width_ratio(PROBLEM, SCHEDULE, time_grid(steps))
        crossing = 4 * w**2 * math.log(w) / (w**2 - 1)
        x = drawn(TRUTH, steps, n)[0.0]
        drift = metrics.law_drift(x, torch.tensor(0.0), TRUTH, draws("drift"))
        distance = metrics.distance_to_nearest_mode(x, PROBLEM)
        ks, _ = metrics.radial_law(distance, metrics.stationary_width(PROBLEM, SCHEDULE), 2)
        assert near(drift, 1 - w**2)
        assert near(ks, math.exp(-crossing / (2 * w**2)) - math.exp(-crossing / 2))
        found.append((ks.value, -drift.value))
    for coarse, fine in itertools.pairwise(found):
        assert all(0 < less < 0.7 * more for less, more in zip(fine, coarse, strict=True))


# Any network


def test_scalars_and_curves_of_the_score_are_of_the_network(wrong):
    assert wrong.estimates["path_kl"] == metrics.path_kl(WRONG, TRUTH, PATH_KL_POINTS, draws("path KL"))
    excess = metrics.excess_loss(WRONG, TRUTH, PER_BIN["excess"], draws("excess"))
    assert {name: wrong.estimates[name] for name in excess} == excess
    for law, points in points_under_both_laws(TRUTH, PER_BIN["score error"], draws("score error")).items():
        scalars, curves = metrics.score_error(WRONG, TRUTH, points)
        assert {name: wrong.estimates[f"{name}_{law}"] for name in scalars} == scalars
        assert {name: wrong.curves[f"{name}_{law}"] for name in curves} == curves
        assert scalars["score_error"].value > 0.05


def test_numbers_of_the_field_are_those_of_float64(wrong):
    precise = diagnostics.in_float64(WRONG)
    for law, points in points_under_both_laws(TRUTH, PER_BIN["field"], draws("field")).items():
        scalars, curves = diagnostics.field_numbers(precise, points.double())
        assert {name: wrong.estimates[f"{name}_{law}"] for name in scalars} == scalars
        assert {name: wrong.curves[f"{name}_{law}"] for name in curves} == curves
        assert scalars["residual_score_fpe"].value > 1e-3
    assert all(wrong.estimates[f"consistency_excess_{law}"].value != 0 for law in LAWS)
    assert not near(wrong.estimates["ode_kl"], 0)


def test_distance_from_memory_is_to_the_runs_own_training_set(wrong):
    others = CONFIGURATION.model_copy(update={"seed": CONFIGURATION.seed + 1}).training_set()
    own, other = (
        metrics.memorisation(WRONG, TRUTH, data, torch.tensor(MEMORY_TIMES), MEMORY_POINTS, draws("memory"))
        for data in (CONFIGURATION.training_set(), others)
    )
    assert wrong.estimates["memorisation"] == own != other


def test_transport_distance_has_that_of_two_exact_sets_as_its_control(exact, wrong, states):
    first, second = (PROBLEM.sample_noised(SCHEDULE.sigma(torch.zeros(2_000)), draws(f"exact {i}")) for i in (1, 2))
    assert len(first) <= TRANSPORT_SAMPLES
    assert wrong.estimates["wasserstein_2"] == metrics.wasserstein_2(states[0.0], first, PROBLEM)
    control = wrong.estimates["wasserstein_2_control"]
    assert control == exact.estimates["wasserstein_2_control"] == metrics.wasserstein_2(second, first, PROBLEM)
    assert control.value < exact.estimates["wasserstein_2"].value < wrong.estimates["wasserstein_2"].value


def test_drift_is_that_at_the_end_and_strays_are_judged_by_the_width_at_each_time(wrong, states):
    generator = draws("drift")
    drifts, strays = {}, {}
    for t, x in states.items():
        drifts[t] = metrics.law_drift(x, torch.tensor(t), TRUTH, generator)
        width = math.hypot(PROBLEM.sigma_d, SCHEDULE.sigma(torch.tensor(t)))
        strays[t] = metrics.stray_fraction(metrics.distance_to_nearest_mode(x, PROBLEM), width)
    assert wrong.estimates["law_drift"] == drifts[0.0]
    for name, expected in (("law_drift", drifts), ("stray_fraction", strays)):
        assert wrong.curves[name].t == list(states)
        assert wrong.curves[name].value == pytest.approx([estimate.value for estimate in expected.values()], abs=1e-3)
    assert wrong.estimates["stray_fraction"].value == wrong.curves["stray_fraction"].value[-1] > 0
    assert wrong.curves["stray_fraction"].value[0] == 0  # at t = 1 five widths are the whole cell


def test_numbers_of_points_are_those_of_the_rows_that_are_kept(wrong):
    """The rows of findings/results.csv say how many samples they are of, but not how many points: those of other
    numbers, with errors of another size, would be compared with them unnoticed."""
    points = {name: estimate.number_of_points for name, estimate in wrong.estimates.items()}
    assert (points["ode_kl"], points["ode_stray_fraction"], points["ode_norm"]) == (300, 500, 500)
    assert points["path_kl"] == 20_000 and points["wasserstein_2"] == 2_000
    assert (points["excess_loss"], points["score_error_noised"], points["score_error_uniform"]) == (10_000,) * 3
    assert (points["residual_score_fpe_noised"], points["curl_uniform"]) == (3_000,) * 2
    assert points["consistency_excess_noised"] == 10_000 and points["circulation_1"] == 400
    assert points["memorisation"] == 240


@pytest.mark.parametrize("learned", [True, False])
def test_evaluations_are_counted_point_by_point(monkeypatch, learned):
    """Those of a hook of our own, and in the field the points at which the derivatives are carried forward, too."""
    monkeypatch.setattr(evaluation, "PER_BIN", dict(zip(PER_BIN, (2, 3, 4, 5, 6), strict=True)))
    for name, few in (("PATH_KL_POINTS", 50), ("ODE_POINTS", 8), ("ODE_SAMPLES", 4), ("MEMORY_POINTS", 3)):
        monkeypatch.setattr(evaluation, name, few)
    network, seen = make_network(SCHEDULE) if learned else CONFIGURATION.build_truth(), []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    states = {t: torch.rand(100, 2, 1, generator=draws("x")) for t in (1.0, 0.0)}
    found = evaluate(network, CONFIGURATION, states, SEED).evaluations
    assert sum(found.values()) == sum(seen) + (2 * BINS * 4 if learned else 0)
    gaps = 2 * BINS * 5 * (1 + 2 * 5)  # the point itself, and two trajectories of five steps
    field = 2 * BINS * 4 + gaps + 2 * BINS * 6 * diagnostics.LOOP_POINTS
    assert found == {
        "score": 50 + BINS * (3 + 2 * 2),
        "field": field,
        "ODE": found["ODE"],
        "memorisation": len(MEMORY_TIMES) * 3,
        "samples": 0,
    }
    assert found["ODE"] > 8 * 10

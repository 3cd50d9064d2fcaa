"""All numbers of a network at once: known for the exact score, given or left out with a reason for any other."""

import itertools
import math
import pkgutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_network, make_problem
from mixtures import make_mixture
from networks import near
from subjects import PROBLEMS, exact_samples, make_subject, seeded, written_and_read, wrong_width

from utils.evaluation import ode_metrics, registry, sample_metrics
from utils.evaluation.estimates import BINS, Estimate
from utils.evaluation.field_metrics import FORMS
from utils.evaluation.registry import METRICS, WHERE, evaluate
from utils.evaluation.sample_metrics import transport_distance
from utils.evaluation.score_metrics import MEMORY_TIMES
from utils.physics.noise_schedule import ExponentialSchedule, LinearSchedule, time_grid
from utils.score.networks import AnalyticalScoreNetwork
from utils.score.samplers import Sampling, sampler_width_ratio

STEPS, SCHEDULE = 20, ExponentialSchedule(sigma_min=0.001, sigma_max=0.2)


def drawn(network, problem, steps=STEPS, samples=40, start="uniform"):
    return Sampling(number_of_samples=samples, time_steps=steps, start=start, seed=3).draw(network, problem)


def test_numbers_of_the_exact_score_are_known():
    """Many are 0, the residuals up to rounding of float64, others within their errors; none is left out."""
    problem = make_problem()
    truth = AnalyticalScoreNetwork(problem, SCHEDULE)
    states = drawn(truth, problem, samples=2_000)
    effort = {"per_bin": 100, "ode_points": 15, "ode_samples": 20, "memory": 20}
    exact = evaluate(make_subject(truth, truth, states, **effort))
    assert exact.skipped == {}
    zero = ["path_kl", "excess_loss", "path_kl_from_loss", "path_kl_disagreement"]
    kinds = ("", "_relative", "_median", "_ridges_on", "_ridges_off")
    zero += [f"score_error{kind}_{where}" for kind in kinds for where in WHERE]
    zero += [f"consistency_error_{where}" for where in WHERE]
    assert {name: exact.estimates[name][:2] for name in zero} == dict.fromkeys(zero, (0, 0))
    for name in (f"{of}_{where}" for of in ("score_error", "consistency_error") for where in WHERE):
        assert set(exact.curves[name].value) == {0.0}
    for form in FORMS:
        assert max(exact.estimates[f"residual_{form}_{where}"].value for where in WHERE) < 1e-10
        assert max(exact.curves[f"residual_{form}_noised"].value) < 1e-9

    expected = {"ode_kl": 0, "ode_norm": 1, "circulation_1": 0, "circulation_2": 0, "mode_occupancy": 1}
    expected["consistency_gap_noised"] = 0  # at uniform points the sampler's steps show
    expected["width_ratio"] = sampler_width_ratio(0.01, SCHEDULE, time_grid(STEPS))
    missed = {name: exact.estimates[name] for name, value in expected.items() if not near(exact.estimates[name], value)}
    assert missed == {}
    values = {name: estimate.value for name, estimate in exact.estimates.items()}
    assert (values["distance_from_memory"], values["ode_stray_fraction"]) == (1, 0)
    assert values["stray_fraction"] < 1e-3 < values["mode_occupancy_p_value"]


def test_what_the_sampler_costs_the_exact_score_is_its_width_and_shrinks_with_its_steps(truth, problem, schedule):
    """Width w for 1 in two components: the drift is 1 - w^2; the laws of r are furthest apart at the r where their
    densities cross, r^2 = 4 w^2 ln w / (w^2 - 1)."""
    found = []
    for steps in (20, 50):
        w = sampler_width_ratio(problem.sigma_d, schedule, time_grid(steps))
        crossing = 4 * w**2 * math.log(w) / (w**2 - 1)
        subject = make_subject(truth, truth, {0.0: drawn(truth, problem, steps, 6_000)[0.0]})
        (drift, _), ks = sample_metrics.law_drift(subject), sample_metrics.radial_ks(subject)
        assert near(drift, 1 - w**2)
        assert near(ks, math.exp(-crossing / (2 * w**2)) - math.exp(-crossing / 2))
        found.append((ks.value, -drift.value))
    assert all(0 < less < 0.7 * more for more, less in zip(*found, strict=True))
    excess = [sampler_width_ratio(problem.sigma_d, schedule, time_grid(n)) - 1 for n in (1_000, 2_000)]
    assert excess[0] / excess[1] == pytest.approx(2, rel=0.02)  # first order in the step


def test_every_number_is_the_same_alone_and_at_points_of_the_seed_alone(truth):
    """So all networks are compared at the same points, and a new metric changes no other."""
    x, data = exact_samples(wrong_width(truth, 0.015), 70), truth.problem.sample(50, seeded())
    per_bin = {"score error": 7, "excess": 5, "field": 3, "gap": 4, "circulation": 2}
    effort = {"path_kl": 50, "ode_points": 8, "ode_samples": 5, "memory": 3, "transport": 60, "per_bin": per_bin}
    make = partial(make_subject, make_network(truth.schedule), truth, x, training_set=data, **effort)
    together = evaluate(make())
    for name in METRICS.keys() - together.skipped.keys():
        result = METRICS[name].compute(make())
        first = result if isinstance(result, Estimate) else result[0]
        assert first == together.estimates[name if name != "circulation" else "circulation_1"], name
    other = evaluate(make(seed=1)).estimates
    of_samples_alone = {"radial_ks", "radial_p_value", "width_ratio", "mode_occupancy", "mode_occupancy_p_value"}
    same = {name for name, estimate in together.estimates.items() if other.get(name) == estimate}
    assert same <= of_samples_alone | {"stray_fraction", "ode_stray_fraction"}

    named = ("score_error_median_uniform", "path_kl_disagreement", "curl_noised", "consistency_error_noised")
    expected = dict(zip((*named, "circulation_2"), (BINS * n for n in per_bin.values()), strict=True))
    expected |= {"path_kl": 50, "ode_kl": 8, "ode_norm": 5, "ode_stray_fraction": 5, "law_drift": 70}
    expected |= {"wasserstein_2": 60, "wasserstein_2_control": 60, "distance_from_memory": 3 * len(MEMORY_TIMES)}
    assert {name: together.estimates[name].number_of_points for name in expected} == expected


@pytest.mark.parametrize(("of_samples", "sigma_d"), [(True, 0.05), (False, 0.14)])
def test_stated_errors_are_the_spread_over_seeds_and_halve_their_square_with_twice_the_points(
    of_samples, sigma_d, monkeypatch
):
    """Broad laws: no heavy tails. The spread of 16 values about their two means is known to 19 %, and four such errors
    are allowed; some stated errors are on the safe side, as those that leave out the bins."""
    monkeypatch.setattr(sample_metrics, "transport_distance", partial(transport_distance, block=10))  # its draws
    modules = {name: one.compute.func.__module__ for name, one in METRICS.items()}
    chosen = [name for name in METRICS if of_samples == modules[name].endswith("sample_metrics")]
    monkeypatch.setattr(registry, "METRICS", {name: METRICS[name] for name in chosen})
    schedule = ExponentialSchedule(sigma_min=0.02, sigma_max=0.2)
    truth = AnalyticalScoreNetwork(make_problem(sigma_d=sigma_d), schedule)
    data, found = truth.problem.sample(500, seeded()), ({}, {})
    effort = {"path_kl": 100, "transport": 200, "ode_points": 20, "ode_samples": 20, "memory": 10}
    per_bin = {"score error": 6, "excess": 6, "field": 6, "gap": 20, "circulation": 3}
    for twice, seed in itertools.product((0, 1), range(8)):
        more, bins = ({name: n * (1 + twice) for name, n in part.items()} for part in (effort, per_bin))
        seed += 8 * twice
        x = exact_samples(wrong_width(truth, 1.2 * sigma_d), 400 * (1 + twice), seed)
        subject = make_subject(make_network(schedule), truth, x, training_set=data, seed=seed, per_bin=bins, **more)
        for name, estimate in evaluate(subject).estimates.items():
            found[twice].setdefault(name, []).append(estimate[:2])
    wrong = {}
    for name in (name for name in found[0] if "p_value" not in name and "stray" not in name):
        if len(found[0][name]) == len(found[1][name]) == 8:  # not where too few points are on a ridge
            values, errors = torch.tensor([found[0][name], found[1][name]], dtype=torch.double).unbind(-1)
            squares = errors.square().mean(1)  # both are (fewer or more points, seed)
            ratio, spread = squares[0] / squares[1], (values.var(1) / squares).mean().sqrt()
            if not (1.5 < ratio < 2.7 and 0.4 < spread < 1.76):
                wrong[name] = ratio, spread
    assert wrong == {}


LINEAR = LinearSchedule(sigma_min=0.01, sigma_max=0.2)
CASES = [(problem, SCHEDULE, True) for problem in PROBLEMS]
CASES += [(make_problem(), LINEAR, False), (make_mixture(), LINEAR, False)]


@pytest.mark.parametrize(("problem", "schedule", "equivariant"), CASES)
def test_every_number_is_given_or_left_out_with_a_reason(problem, schedule, equivariant):
    problem = problem.model_copy(update={"permutation_symmetric": equivariant})
    truth = AnalyticalScoreNetwork(problem, schedule)
    network = make_network(schedule, problem.shape, equivariant)
    states = drawn(network, problem, 7, start="exact")
    assert max(states) == 1 and min(states) == 0
    found = evaluate(make_subject(network, truth, states))
    expected = set(METRICS) - {"circulation"} | {f"circulation_{k + 1}" for k in range(math.prod(problem.shape))}
    missing = {name for name in expected - set(found.estimates) if not found.skipped.get(name)}
    assert not missing and set(found.estimates) <= expected
    for name, estimate in found.estimates.items():
        assert math.isfinite(estimate.value) and estimate.number_of_points > 0, name


def test_a_network_with_a_huge_output_is_evaluated_and_its_infinite_numbers_are_recorded(truth, tmp_path, monkeypatch):
    """Finite weights, but squares beyond float32. JSON knows no infinity: it stands as text."""
    monkeypatch.setattr(ode_metrics, "MAX_EVALUATIONS", 20)
    network = make_network(truth.schedule).requires_grad_(False)
    network.layers[-1].weight *= 1e25
    states = drawn(network, truth.problem)
    assert torch.isfinite(states[0.0]).all()
    found = evaluate(make_subject(network, truth, states))
    assert found.estimates["path_kl"].value == found.curves["consistency_gap_noised"].value[0] == math.inf
    assert 1e20 < found.estimates["score_error_uniform"].value < math.inf  # squares of these are taken in float64
    assert math.isnan(found.estimates["path_kl_disagreement"].value)
    assert "needs more than 20 evaluations" in found.skipped["ode_kl"]
    written, read = written_and_read(found, tmp_path)
    assert (written["metrics"]["path_kl"]["value"], written["metrics"]["path_kl"]["standard_error"]) == ("inf", "nan")
    assert read.left_out == found.skipped and read.curves.keys() == found.curves.keys()
    for name, estimate in found.estimates.items():
        assert read.estimates[name].value == pytest.approx(estimate.value, rel=1e-5, nan_ok=True), name  # six digits
        assert (read.estimates[name].standard_error is None) == (estimate.standard_error is None)
        assert read.estimates[name].number_of_points == estimate.number_of_points
    for name, curve in found.curves.items():
        assert read.curves[name].value == pytest.approx(curve.value, rel=1e-5, nan_ok=True), name


WITHOUT_PICTURES = """
from subjects import FEW, Run, Sampling, load_run
utils.evaluation.registry.Effort = lambda: FEW
utils.evaluation.ode_metrics.MAX_EVALUATIONS = 9
sampling, folder = Sampling(number_of_samples=50, time_steps=5), pathlib.Path(sys.argv[1])
record, _, seconds = utils.runs.store.evaluate_run(load_run(Run("analytical")), sampling, folder)
record.write(seconds)
print(len(record.estimates) > 30, (folder / "metrics.json").exists(), "matplotlib" in sys.modules)
"""


def test_evaluating_a_run_imports_no_matplotlib(tmp_path):
    """A sweep evaluates thousands: only pictures may need it."""
    folders = [str(ROOT / "utils" / name) for name in ("evaluation", "runs", "sweeps")]
    modules = [f"utils.{Path(one.module_finder.path).name}.{one.name}" for one in pkgutil.iter_modules(folders)]
    code = f"import pathlib, sys; sys.path[:0] = {sys.path}\nimport {', '.join(modules)}\n{WITHOUT_PICTURES}"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["True True False"], done.stderr

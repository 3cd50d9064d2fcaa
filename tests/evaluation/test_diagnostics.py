"""What every number must be where the answer is known, and that its standard error is honest."""

import math

import pytest
import torch
from conftest import BASE, OTHERS, make_network, make_problem
from scipy.stats import kstest
from torch.distributions import Normal

from utils.evaluation import evaluate as evaluation
from utils.evaluation import field_metrics as diagnostics
from utils.evaluation import sample_metrics as metrics
from utils.evaluation.estimates import BINS, Curve, Estimate, Points, by_bin, points_under_both_laws, stratified_times
from utils.evaluation.registry import METRICS, describe
from utils.physics.noise_schedule import ExponentialSchedule, LinearSchedule
from utils.physics.torus import wrapped_normal_log_density
from utils.reports.experiment import Sampling
from utils.runs.loading import ANALYTICAL, configure
from utils.score.networks import AnalyticalScoreNetwork, EmpiricalScoreNetwork, ScoreNetwork

SCHEDULES = [ExponentialSchedule(sigma_min=0.001, sigma_max=0.2), LinearSchedule(sigma_min=0.001, sigma_max=0.2)]


class Rotation(ScoreNetwork):
    """N = (a(y), b(x)): with b = -a its Jacobian is antisymmetric on average in the sense of E[tr J J] = 0."""

    def forward(self, x, t):
        phase = 2 * torch.pi * x
        return torch.stack([torch.sin(phase[:, 1]), -torch.sin(phase[:, 0])], 1)


FRACTION = 0.9


class Fraction(ScoreNetwork):
    """Too small a score: no diffusing density has it."""

    def __init__(self, truth):
        super().__init__(truth.schedule)
        self.truth = truth

    def forward(self, x, t):
        return FRACTION * self.truth(x, t)


class Constant(ScoreNetwork):
    """N = (2, -3) everywhere: no curl, and yet no gradient of a function on a torus."""

    def forward(self, x, t):
        return torch.tensor([[2.0], [-3.0]], dtype=x.dtype).expand_as(x) + 0 * x


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def near(estimate, expected, errors=4.0):
    return abs(estimate.value - expected) <= errors * estimate.standard_error


def wrong_width(problem, schedule, sigma_d=0.012):
    return AnalyticalScoreNetwork(problem.model_copy(update={"sigma_d": sigma_d}), schedule)


# Estimates


@pytest.mark.parametrize(
    ("estimate", "true"),
    [
        (lambda u: Estimate.of_mean(u), 0.5),
        (lambda u: Estimate.of_root_mean(u.square()), 1 / math.sqrt(3)),
        (lambda u: Estimate.of_ratio(u.square(), u), 2 / 3),
        (lambda u: metrics._root(Estimate.of_ratio(u.square(), u)), math.sqrt(2 / 3)),
        (lambda u: Estimate.of_median(u), 0.5),
        (lambda u: Estimate.of_share(int((u < 0.3).sum()), u.numel()), 0.3),
    ],
)
def test_standard_errors_are_honest_and_halve_their_square_with_twice_the_points(estimate, true):
    """The spread of 300 repeats is known to 4 %, a mean of their stated errors better; four such errors are allowed."""
    stated = []
    for n in (400, 800):
        found = [estimate(torch.rand(n, generator=seeded(seed))) for seed in range(300)]
        values, errors = (torch.tensor([e[i] for e in found]) for i in range(2))
        assert abs(values.mean() - true) < 4 * values.std() / 300**0.5 + 1e-3  # a ratio's bias falls like 1/n
        assert errors.mean() == pytest.approx(values.std().item(), rel=0.17)
        stated.append(errors.square().mean())
    assert stated[0] / stated[1] == pytest.approx(2, rel=0.1)


def test_stratified_error_leaves_out_what_differs_between_bins():
    draws = [torch.arange(BINS)[:, None] + torch.rand(BINS, 10, generator=seeded(seed)) for seed in range(200)]
    found = [Estimate.of_mean(d) for d in draws]
    spread = torch.tensor([e.value for e in found]).std().item()
    assert found[0].standard_error == pytest.approx(spread, rel=0.25)
    assert found[0].standard_error < 0.1 * Estimate.of_mean(draws[0].flatten()).standard_error


def test_intervals_of_a_share_hold_it_as_often_as_they_say():
    """Wilson's, for a rare event: 95 % up to the steps of the binomial law. None of 1000 still has an upper bound."""
    counts = (torch.rand(400, 1000, generator=seeded()) < 0.003).sum(1)
    held = [e.interval[0] <= 0.003 <= e.interval[1] for e in (Estimate.of_share(int(c), 1000) for c in counts)]
    assert 0.9 < sum(held) / 400 <= 1
    none = Estimate.of_share(0, 1000)
    assert none.value == 0 and none.interval[0] == 0 and 0.003 < none.interval[1] < 0.005


@pytest.mark.parametrize(("successes", "trials"), [(0, 1000), (3, 10), (9978, 10_000)])
def test_interval_of_a_share_ends_where_its_normal_law_leaves_it_out(successes, trials):
    """Wilson's ends are those shares p with (k/n - p)^2 = z^2 p (1 - p) / n, and no wider."""
    found = Estimate.of_share(successes, trials)
    for p in found.interval:
        assert (found.value - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / trials, rel=1e-6, abs=1e-15)
    value, error, _, interval = found.scaled(3)
    expected = [3 * number for number in (found.value, found.standard_error, *found.interval)]
    assert [value, error, *interval] == pytest.approx(expected)


def test_times_are_uniform_in_their_bins_whose_centres_are_those_of_a_curve():
    t = by_bin(stratified_times(2_000, seeded()))
    place = BINS * t - torch.arange(BINS)[:, None]
    assert place.min() >= 0 and place.max() <= 1 + 1e-5  # rounding of float32
    assert kstest(place.flatten().numpy(), "uniform").pvalue > 1e-3
    curve = Curve.of([Estimate.of_mean(row) for row in t])
    for centre, mean, error in zip(*curve, strict=True):
        assert abs(centre - mean) < 4 * error < 0.1 / BINS


def test_printed_error_is_that_of_the_last_digit():
    assert str(Estimate(0.04327, 0.0025, 10)) == "0.043(2)" or str(Estimate(0.04327, 0.0025, 10)) == "0.043(3)"
    assert str(Estimate(-0.0009, 0.0036, 10)) == "-0.001(4)"
    assert str(Estimate(0.0, 0.0, 10)) == "0"


# The score


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_path_kl_follows_from_the_excess_loss(schedule, symmetric):
    """Without wrapping N is linear, D known: the path KL of a wrong sigma_d is a one-dimensional integral."""
    problem = make_problem(permutation_symmetric=symmetric)
    truth, network = AnalyticalScoreNetwork(problem, schedule), wrong_width(problem, schedule, 0.02)
    found = metrics.excess_loss(network, truth, 2_000, seeded())
    direct = metrics.path_kl(network, truth, 40_000, seeded(1))
    assert near(found["path_kl_disagreement"], 0)
    assert abs(found["path_kl_from_loss"].value - direct.value) < 4 * math.hypot(
        found["path_kl_from_loss"].standard_error, direct.standard_error
    )
    t = torch.linspace(0, 1, 20_001).double()
    sigma, rate = schedule.sigma(t), schedule.sigma_dot(t)
    width, wrong = 0.01**2 + sigma**2, 0.02**2 + sigma**2
    exact = torch.trapezoid(2 * sigma * rate * width * (1 / wrong - 1 / width) ** 2, t).item()
    assert near(direct, exact)
    if isinstance(schedule, ExponentialSchedule):  # L x components x excess, and the weights are constant
        factor = schedule.rate * 2
        assert found["path_kl_from_loss"].value == pytest.approx(factor * found["excess_loss"].value, rel=1e-5)


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
@pytest.mark.parametrize("symmetric", [True, False])
def test_truth_has_no_error_and_twice_the_truth_a_relative_one_of_1(coordinates, symmetric, schedule):
    truth = AnalyticalScoreNetwork(make_problem(coordinates, permutation_symmetric=symmetric), schedule)

    class Twice(ScoreNetwork):
        def forward(self, x, t):
            return 2 * truth(x, t)

    for points in points_under_both_laws(truth, 60, seeded()).values():
        zero, _ = metrics.score_error(truth, truth, points)
        assert all(estimate[:2] == (0, 0) for estimate in zero.values())
        scalars, curves = metrics.score_error(Twice(schedule), truth, points)
        assert scalars["score_error_relative"].value == pytest.approx(1, abs=1e-6)
        size = truth(*points).square().mean().sqrt().item()
        assert scalars["score_error"].value == pytest.approx(size, rel=1e-5)
        assert len(curves["score_error"].t) == BINS
        assert ("score_error_off_ridges" in scalars) == (len(truth.problem.assignments) > 1)


def test_ridges_are_where_two_assignments_weigh_alike(problem, truth, schedule):
    """On x_1 = x_2 both weigh the same; at a mode one outweighs the other by |difference|^2 / 2 sigma_eff^2 nats."""
    t = torch.tensor([0.5]).double()
    sigma = schedule.sigma(t)
    assert problem.ridge_distance(torch.full((1, 2, 1), 0.37).double(), sigma).abs() < 1e-9
    mode = problem.modes()[:1].double()
    exact = 2 * (0.5**2) / (2 * problem.effective_sigma(sigma) ** 2) - 2 * math.log(2)  # two images at distance 1/2
    assert torch.allclose(problem.ridge_distance(mode, sigma), exact, rtol=1e-6)
    assert make_problem([[0.4]]).ridge_distance(torch.rand(1, 1, 1), torch.ones(1)).isinf()


def test_memorisation_is_0_for_the_training_data_by_heart_and_1_for_the_truth(problem, truth, schedule):
    data, times = problem.sample(500, seeded()), torch.tensor([0.0, 0.2])
    by_heart = EmpiricalScoreNetwork(problem.permuted(data), schedule)
    assert metrics.memorisation(by_heart, truth, data, times, 20, seeded()).value == 0
    assert metrics.memorisation(truth, truth, data, times, 20, seeded()).value == 1


def test_empirical_score_is_that_of_a_problem_with_sharp_modes(schedule):
    for coordinates in (BASE, *OTHERS):
        sharp = make_problem(coordinates, sigma_d=1e-9)
        x, t = torch.rand(30, *sharp.shape, generator=seeded()).double(), torch.full((30,), 0.4).double()
        x = (sharp.modes(x)[0] + 0.1 * (x - 0.5)) % 1
        exact = AnalyticalScoreNetwork(sharp, schedule)(x, t)  # below: modes() rounds to float32, 1e-8 of sigma
        assert torch.allclose(EmpiricalScoreNetwork(sharp.modes(x), schedule)(x, t), exact, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="narrower"):
        EmpiricalScoreNetwork(sharp.modes(x), schedule)(x, t + 0.5)


def test_empirical_score_is_the_gradient_of_the_mixture_of_kernels(schedule):
    centres = 0.5 + 0.02 * torch.randn(20, 2, 1, generator=seeded()).double()
    x, t = 0.5 + 0.02 * torch.randn(10, 2, 1, generator=seeded(1)).double(), torch.full((10,), 0.45).double()
    x.requires_grad_()
    sigma = schedule.sigma(t)[:, None, None, None]
    kernels = wrapped_normal_log_density(x[:, None] - centres, sigma).sum((-2, -1))
    (score,) = torch.autograd.grad(kernels.logsumexp(1).sum(), x)
    assert torch.allclose(EmpiricalScoreNetwork(centres, schedule)(x, t), sigma[:, 0] * score, rtol=1e-9, atol=1e-12)


# Samples


def exact_samples(problem, schedule, n, seed=0):
    return problem.sample_noised(schedule.sigma(torch.zeros(n)), seeded(seed))


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_exact_samples_pass_every_test_of_samples(coordinates, schedule):
    problem = make_problem(coordinates)
    truth, x = AnalyticalScoreNetwork(problem, schedule), exact_samples(problem, schedule, 3_000)
    sigma_0, distance = metrics.stationary_width(problem, schedule), metrics.distance_to_nearest_mode(x, problem)
    ks, p_value = metrics.radial_law(distance, sigma_0, x[0].numel())
    assert ks.interval[0] == 0 and p_value.value > 1e-3
    assert metrics.radial_law(1.2 * distance, sigma_0, x[0].numel())[1].value < 1e-6
    if len(problem.assignments) > 1:
        share, p_value = metrics.mode_occupancy(x, problem, sigma_0)
        assert near(share, 1) and p_value.value > 1e-3
    assert near(metrics.law_drift(x, torch.tensor(0.0), truth, seeded(3)), 0)
    data = problem.sample(1_000, seeded(5))
    assert near(metrics.nearest_neighbour_ratio(x, data, truth, seeded(4)), 1)
    copies = data.repeat(3, 1, 1)
    assert metrics.nearest_neighbour_ratio(copies, data, truth, seeded(4)).value < 1e-3


def test_neighbours_are_found_across_the_seam(schedule):
    """A sample 2e-4 from the only training point, on the other side of 0; an exact draw is about 8e-3 away."""
    truth = AnalyticalScoreNetwork(make_problem([[0.0]]), schedule)
    x, data = torch.full((50, 1, 1), 1e-4), torch.full((1, 1, 1), 0.9999)
    assert 0.01 < metrics.nearest_neighbour_ratio(x, data, truth, seeded()).value < 0.05


def test_radial_distance_is_the_largest_gap_between_the_laws(schedule, problem):
    """All samples at r = sigma_0 sqrt(2 ln 2), the median radius: the laws are half apart."""
    distance = torch.full((100,), 2 * math.log(2)).sqrt()
    assert metrics.radial_law(distance, 1.0, 2)[0].value == pytest.approx(0.5, abs=1e-6)


def test_drift_of_a_wider_law_is_its_known_number_of_nats(problem, truth, schedule):
    """E log p of a Gaussian of width w sigma_0 less that of width sigma_0: -(w^2 - 1), two components."""
    u = problem.nearest_mode(exact_samples(problem, schedule, 4_000))[0]
    x = (problem.modes()[0] + 1.3 * u) % 1
    assert near(metrics.law_drift(x, torch.tensor(0.0), truth, seeded(7)), -(1.3**2 - 1))


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
def test_transport_finds_a_shift_across_the_seam_and_relabels_atoms(coordinates, schedule):
    problem = make_problem(coordinates)
    x = exact_samples(problem, schedule, 1_000)
    far = torch.zeros(problem.shape)
    far[0, 0] = 0.004
    for same in (x, x.flip(1) if problem.shape[0] == 2 else x):
        assert metrics.wasserstein_2(x, same, problem).value < 1e-6
    blockwise = torch.cat([block[torch.randperm(500, generator=seeded(1))] for block in x.split(500)])
    x, y = (0.999 + x) % 1, (0.999 + blockwise + 0.0005) % 1
    size = 0.0005 * math.sqrt(far.numel())  # a common shift of all is transported point by point
    assert metrics.wasserstein_2(x, y, problem).value == pytest.approx(size, rel=1e-3)
    fixed = make_problem([[0.25], [0.6]], permutation_symmetric=False)  # not half a cell apart, where images compete
    x = exact_samples(fixed, schedule, 500)
    assert metrics.wasserstein_2(x, x.flip(1), fixed).value == pytest.approx(math.sqrt(2) * 0.35, rel=0.01)


def test_transport_takes_whole_blocks_alone(problem, schedule):
    """The few samples of a smaller block lie far from each other: they are no part of the same mean."""
    x, y = (problem.sample_noised(schedule.sigma(torch.zeros(1_010)), seeded(i)) for i in (1, 2))
    whole = metrics.wasserstein_2(x[:1_000], y[:1_000], problem)
    assert metrics.wasserstein_2(x, y, problem) == whole and whole.number_of_points == 1_000
    assert whole.standard_error > 0
    for n in (499, 501):
        alone = metrics.wasserstein_2(x[:n], y[:n], problem)
        assert alone.standard_error is None and alone.number_of_points == min(n, 500)
        assert alone.value == pytest.approx(whole.value, rel=0.1)


# Fields


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_truth_solves_the_equation_without_curl_or_circulation(coordinates, schedule):
    """Rounding of float64, as in test_regularizers.py."""
    truth = AnalyticalScoreNetwork(make_problem(coordinates), schedule)
    for points in points_under_both_laws(truth, 5, seeded()).values():
        scalars, curves = diagnostics.field_numbers(truth, points.double())
        for form in diagnostics.FORMS:
            assert scalars[f"residual_{form}"].value < 1e-9
            assert max(curves[f"residual_{form}"].value) < 1e-8
        assert ("curl" in scalars) == (truth.problem.shape != (1, 1))
        assert abs(scalars.get("curl", Estimate(0, 0, 0)).value) < 1e-12
    for circulation in diagnostics.circulations(truth, truth.problem.shape, 20, seeded()):
        assert near(circulation, 0)


def test_curl_of_a_rotation_and_circulation_of_a_constant_field(schedule, truth):
    """tr J J = -8 pi^2 cos cos has mean 0 under uniform points, so the share is one half; at x = y it is 1."""
    points = points_under_both_laws(truth, 300, seeded())["uniform"].double()
    assert near(diagnostics.field_numbers(Rotation(schedule), points)[0]["curl"], 0.5)
    diagonal = Points(points.x[:, :1].expand(-1, 2, 1), points.t)
    assert diagnostics.field_numbers(Rotation(schedule), diagonal)[0]["curl"].value == pytest.approx(1, abs=1e-12)
    constant = diagnostics.circulations(Constant(schedule), (2, 1), 2, seeded())
    assert [c.value for c in constant] == pytest.approx([2, -3], abs=1e-6)


def test_circulation_goes_all_the_way_round(schedule):
    """The derivative of a periodic function integrates to 0 on every single line, not only on average."""

    class Wave(ScoreNetwork):
        def forward(self, x, t):
            return torch.sin(2 * torch.pi * x)

    for circulation in diagnostics.circulations(Wave(schedule), (2, 1), 5, seeded()):
        assert abs(circulation.value) < 1e-6 and circulation.standard_error < 1e-6  # float32


def test_residual_scalars_are_the_mean_and_median_of_the_residual(schedule, truth):
    from utils.score.regularizers import fokker_planck_residual

    network = diagnostics.in_float64(make_network(schedule))
    points = points_under_both_laws(truth, 40, seeded())["noised"].double()
    scalars, curves = diagnostics.field_numbers(network, points)
    for form in diagnostics.FORMS:
        squares = fokker_planck_residual(network, *points, form).square().mean(1)
        assert scalars[f"residual_{form}"].value == pytest.approx(squares.mean().sqrt().item(), rel=1e-9)
        assert scalars[f"residual_{form}_median"].value == pytest.approx(squares.sqrt().median().item(), rel=0.02)
        assert curves[f"residual_{form}"].value[3] == pytest.approx(by_bin(squares)[3].mean().sqrt().item(), rel=1e-9)


def test_consistency_gap_of_the_truth_is_0_where_it_should_be_and_shrinks_elsewhere(truth):
    """Under the noised law 0 within the error; from uniform points the sampler's steps show, the less the finer."""
    points = points_under_both_laws(truth, 300, seeded())
    found, _ = diagnostics.consistency_gap(truth, truth, points["noised"], "noised", seeded(1))
    assert near(found["consistency_gap"], 0) and found["consistency_gap"].standard_error < 0.02
    at = Points(torch.rand(6_000, 2, 1, generator=seeded(2)), torch.full((6_000,), 0.6))
    found = [
        diagnostics.consistency_gap(truth, truth, at, "uniform", seeded(3), *steps)[0]
        for steps in ((100, 5), (4, 2), (40, 20))
    ]
    assert all(estimates["consistency_excess"][:2] == (0, 0) for estimates in found)
    known, coarse, fine = (estimates["consistency_gap"] for estimates in found)
    assert near(known, 0.16)  # 0.32 +- 0.05 summed over two components
    assert coarse.value > 4 * coarse.standard_error
    assert fine.value + 2 * fine.standard_error < coarse.value / 2  # the same span of time in ten times as many steps


def test_excess_gap_of_too_small_a_score_is_its_known_size():
    """One Gaussian, hardly wrapped: a step takes the mean of u, the displacement, to u (1 - a g / width^2) with the
    fraction a of the score, so the gap is linear in u; with a = 1, for any width, it vanishes."""
    schedule = ExponentialSchedule(sigma_min=0.001, sigma_max=0.05)
    truth = AnalyticalScoreNetwork(make_problem([[0.5]], permutation_symmetric=False), schedule)
    t = torch.full((20_000,), 0.6)
    points = Points(truth.problem.sample_noised(schedule.sigma(t), seeded()), t)
    found, _ = diagnostics.consistency_gap(Fraction(truth), truth, points, "noised", seeded(1))

    variances = schedule.sigma(torch.linspace(0.55, 0.6, 6).double()) ** 2
    widths = 0.01**2 + variances
    mean = torch.prod(1 - FRACTION * variances.diff() / widths[1:])
    slope = FRACTION * variances[-1].sqrt() * (1 / widths[-1] - mean / widths[0])  # of sigma times the gap, in u
    assert near(found["consistency_excess"], (slope**2 * widths[-1]).item())
    assert found["consistency_excess"].standard_error < 0.2 * found["consistency_gap"].standard_error


def test_stated_error_of_the_gap_is_its_spread(schedule):
    truth = AnalyticalScoreNetwork(make_problem(), schedule)
    network = wrong_width(truth.problem, schedule, 0.05)
    found = []
    for seed in range(30):
        points = points_under_both_laws(truth, 20, seeded(seed))["noised"]
        found.append(diagnostics.consistency_gap(network, truth, points, "noised", seeded(100 + seed))[0])
    for name in found[0]:
        values, errors = (torch.tensor([estimates[name][i] for estimates in found]) for i in range(2))
        assert errors.square().mean().sqrt() == pytest.approx(values.std().item(), rel=0.5)  # 13 % each, heavy tails


# The probability-flow ODE


def test_ode_of_the_truth_has_no_divergence_and_norm_1(truth):
    found = diagnostics.ode_likelihood(truth, truth, 100, 300, seeded())
    assert found["ode_stray_fraction"].value == 0
    for name, exact in (("ode_kl", 0), ("ode_norm", 1)):  # the errors are all the solver's
        assert near(found[name], exact, 1) and found[name].standard_error < 2e-3


def test_ode_samples_are_drawn_from_the_density_that_their_paths_give():
    """A wrong width, so wide that some are strays, of a Gaussian: in the end one of the variance of the next test."""
    schedule = ExponentialSchedule(sigma_min=0.001, sigma_max=0.06)
    truth = AnalyticalScoreNetwork(make_problem([[0.3]]), schedule)
    network = wrong_width(truth.problem, schedule, 0.03)
    start = truth.problem.sample_noised(schedule.sigma(torch.ones(2_000).double()), seeded())
    x, log_q = diagnostics.ode_samples(network, truth, start)
    v = (0.03**2 + 0.001**2) * (0.01**2 + 0.06**2) / (0.03**2 + 0.06**2)
    u = (x - 0.3).flatten()
    assert torch.allclose(log_q, -0.5 * (u**2 / v + math.log(2 * math.pi * v)), rtol=0, atol=2e-3)
    assert near(Estimate.of_mean(u**2), v)
    assert torch.allclose(diagnostics.ode_log_density(network, truth, x), log_q, rtol=0, atol=1e-2)
    found = diagnostics.ode_likelihood(network, truth, 40, 2_000, seeded(1))
    beyond = 2 * Normal(0, 1).cdf(torch.tensor(-metrics.STRAY_DISTANCE * math.sqrt((0.01**2 + 0.001**2) / v))).item()
    assert beyond > 0.03 and near(found["ode_stray_fraction"], beyond) and near(found["ode_norm"], 1)


def test_ode_that_does_not_end_is_left_out_with_a_reason(monkeypatch):
    monkeypatch.setattr(diagnostics, "MOST_EVALUATIONS", 10)
    configuration, report = configure("no_regularizer"), evaluation.Report()
    network, truth = configuration.build_network(), configuration.build_truth()
    evaluation._ode(report, network, truth, lambda purpose: seeded())
    assert report.estimates == {} and report.skipped.keys() == {"ode_kl", "ode_stray_fraction", "ode_norm"}
    assert all("more than 10 evaluations" in reason for reason in report.skipped.values())


def test_ode_kl_of_a_wrong_width_is_the_closed_form():
    """Unsymmetrised and hardly wrapped: linear ODE. The score of width w carries the exact law at t = 1 back to a
    Gaussian of variance v = (w^2 + sigma_min^2) (sigma_d^2 + sigma_max^2) / (w^2 + sigma_max^2)."""
    schedule = ExponentialSchedule(sigma_min=0.001, sigma_max=0.06)  # at t = 1 the seam is 8 widths away
    problem = make_problem(permutation_symmetric=False)
    truth, network = AnalyticalScoreNetwork(problem, schedule), wrong_width(problem, schedule, 0.015)
    p = 0.01**2 + 0.001**2
    v = (0.015**2 + 0.001**2) * (0.01**2 + 0.06**2) / (0.015**2 + 0.06**2)
    exact = p / v - 1 - math.log(p / v)  # KL of two isotropic Gaussians in two dimensions
    found = diagnostics.ode_likelihood(network, truth, 1_500, 50, seeded())["ode_kl"]
    assert found.standard_error < 0.1 * exact and near(found, exact)


def test_ode_density_of_a_network_integrates_to_1_on_a_grid(schedule):
    """A broad law and an untrained network: smooth, so the sum over the grid is exact to the solver's tolerance."""
    schedule = ExponentialSchedule(sigma_min=0.1, sigma_max=0.2)
    truth = AnalyticalScoreNetwork(make_problem(sigma_d=0.05), schedule)
    network = diagnostics.in_float64(make_network(schedule))
    for parameter in network.parameters():
        parameter.mul_(2)
    axis = torch.arange(24).double() / 24
    x = torch.cartesian_prod(axis, axis)[:, :, None]
    density = diagnostics.ode_log_density(network, truth, x).exp()
    assert density.mean().item() == pytest.approx(1, abs=1e-4)
    assert density.std() > 0.1  # it is not the uniform one


# Twice the points


def of_the_score(network, truth, n, seed):
    points = points_under_both_laws(truth, n, seeded(seed))["uniform"]
    yield metrics.score_error(network, truth, points)[0]
    yield metrics.excess_loss(network, truth, n, seeded(seed))
    yield {"path_kl": metrics.path_kl(network, truth, n, seeded(seed))}
    data = truth.problem.sample(50, seeded())
    yield {"memorisation": metrics.memorisation(network, truth, data, torch.tensor([0.1, 0.2]), n, seeded(seed))}


def of_the_field(network, truth, n, seed):
    network = make_network(truth.schedule)
    points = points_under_both_laws(truth, n, seeded(seed))
    yield diagnostics.field_numbers(diagnostics.in_float64(network), points["uniform"].double())[0]
    yield {"circulation": diagnostics.circulations(network, (2, 1), n, seeded(seed))[0]}


def of_trajectories(network, truth, n, seed):
    points = points_under_both_laws(truth, n, seeded(seed))["noised"]
    yield diagnostics.consistency_gap(make_network(truth.schedule), truth, points, "noised", seeded(seed))[0]


def of_the_ode(network, truth, n, seed):
    yield diagnostics.ode_likelihood(diagnostics.in_float64(network), truth, n, n, seeded(seed))


def of_samples(network, truth, n, seed):
    problem, x = network.problem, exact_samples(network.problem, truth.schedule, n, seed)
    sigma_0 = 0.7 * metrics.stationary_width(problem, truth.schedule)  # so that some are strays
    distance = metrics.distance_to_nearest_mode(x, problem)
    yield {"stray_fraction": metrics.stray_fraction(2 * distance, sigma_0)}
    yield {"radial_ks": metrics.radial_law(distance, sigma_0, 2)[0]}
    yield {"width_ratio": metrics.width_ratio(x, problem, sigma_0)}
    yield {"mode_occupancy": metrics.mode_occupancy(x, problem, sigma_0)[0]}
    yield {"law_drift": metrics.law_drift(x, torch.tensor(0.0), truth, seeded(seed))}
    data = problem.sample(500, seeded())
    yield {"nearest_neighbour_ratio": metrics.nearest_neighbour_ratio(x, data, truth, seeded(seed))}


def of_transport(network, truth, n, seed):
    x, y = (exact_samples(problem, truth.schedule, n, seed) for problem in (network.problem, truth.problem))
    yield {"wasserstein_2": metrics.wasserstein_2(x, y.flip(0), truth.problem)}


@pytest.mark.parametrize(
    ("part", "n", "repeats"),
    [
        (of_the_score, 300, 10),
        (of_the_field, 40, 12),
        (of_trajectories, 400, 8),
        (of_the_ode, 200, 4),
        (of_samples, 2_000, 3),
        (of_transport, 2_000, 12),
    ],
)
def test_twice_the_points_halve_the_squared_error_of_every_number(part, n, repeats, monkeypatch):
    """A broad law and a wrong width: no heavy tails, so the mean squared error over a few seeds is known well."""
    monkeypatch.setattr(metrics, "BLOCK", 50)  # as the blocks are the draws of the transport distance
    schedule = ExponentialSchedule(sigma_min=0.02, sigma_max=0.2)
    truth = AnalyticalScoreNetwork(make_problem(sigma_d=0.05), schedule)
    network = wrong_width(truth.problem, schedule, 0.07)
    squares = []
    for points in (n, 2 * n):
        found = {}
        for seed in range(repeats):
            for estimates in part(network, truth, points, seed):
                for name, estimate in estimates.items():
                    found.setdefault(name, []).append(estimate.standard_error**2)
        squares.append({name: sum(values) / repeats for name, values in found.items()})
    ratios = {name: square / squares[1][name] for name, square in squares[0].items() if name != "ode_stray_fraction"}
    assert {name: ratio for name, ratio in ratios.items() if not 1.5 < ratio < 2.7} == {}  # nobody strays from the ODE


# All of them


@pytest.mark.parametrize("coordinates", [BASE, *OTHERS])
@pytest.mark.parametrize(("equivariant", "schedule"), [(True, "exponential"), (False, "linear")])
def test_every_number_is_given_or_left_out_with_a_reason(coordinates, equivariant, schedule, monkeypatch):
    monkeypatch.setattr(evaluation, "PER_BIN", dict.fromkeys(evaluation.PER_BIN, 4))
    for name, few in (("PATH_KL_POINTS", 50), ("ODE_POINTS", 4), ("ODE_SAMPLES", 2), ("MEMORY_POINTS", 3)):
        monkeypatch.setattr(evaluation, name, few)
    configuration = configure(
        ANALYTICAL,
        [
            f"toy_problem.equilibrium_relative_coordinates={coordinates}",
            f"score_network.permutation_equivariant={str(equivariant).lower()}",
            f"noise_schedule.type={schedule}",
            "noise_schedule.sigma_min=0.01",
            "noise_schedule.sigma_max=0.2",
            "data.training_set_size=50",
        ],
    )
    sampling = Sampling(number_of_samples=40, time_steps=7, corrector_steps=0, start="exact", seed=1)
    for network in (configuration.build_truth(), configuration.build_network()):
        states = sampling.draw(network, configuration)
        assert max(states) == 1 and min(states) == 0
        report = evaluation.evaluate(network, configuration, states, 1)
        components = math.prod(configuration.toy_problem.shape)
        expected = set(METRICS) - {"circulation"} | {f"circulation_{k + 1}" for k in range(components)}
        missing = {name for name in expected - set(report.estimates) if not report.skipped.get(name)}
        assert not missing and set(report.estimates) <= expected
        for name, estimate in report.estimates.items():
            assert math.isfinite(estimate.value) and estimate.number_of_points > 0, name
            assert describe(name).definition and describe(name).source

"""The figures draw whatever the shape of the problem, and redrawn on a kept background they are as if drawn anew."""

import io

import numpy as np
import pytest
import torch
from conftest import BASE, make_network, make_problem
from matplotlib.colors import to_rgb
from PIL import Image

from utils.evaluation import sample_metrics as metrics
from utils.physics.noise_schedule import ExponentialSchedule
from utils.plots import experiment_figures as figures
from utils.plots import views
from utils.score.networks import AnalyticalScoreNetwork

SHAPES = {"2 atoms, 1 dimension": BASE, "2x2": [[0.2, 0.3], [0.7, 0.9]], "3x1": [[0.1], [0.45], [0.8]]}
SIGMA_0 = 0.01005
TIMES = (0.0, 0.5, 1.0)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shaped(request):
    return make_problem(request.param)


def opened(png):
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    pixels = np.asarray(picture.convert("RGB"))
    assert pixels.min() < 50 and pixels.max() > 250  # something is drawn
    return pixels


def field_figure(problem, schedule, times=None):
    field = views.Field(problem, schedule)
    return field, figures.ScoreFieldFigure(field.points, field.grid, field.modes, times)


def line_figure(problem, schedule, times=TIMES):
    times = torch.tensor(times)
    truth = AnalyticalScoreNetwork(problem, schedule)
    positions, x, direction = views.line_through_modes(problem, 101)
    gaussian, likely = views.gaussian_along_line(problem, x, direction, schedule.sigma(times))
    exact = views.along_line(truth, x, direction, times)
    return figures.ScoreLineFigure(*(a.numpy() for a in (positions, times, exact, gaussian, likely))), exact.numpy()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sigmas", [(1e-12, 1e-3, 1e-12), (0.001, 2.0, 0.01), (1.0, 100.0, 50.0)])
def test_laws_at_one_point_and_without_structure_can_be_drawn(sigmas):
    low, high, sigma_d = sigmas
    problem, schedule = make_problem(sigma_d=sigma_d), ExponentialSchedule(sigma_min=low, sigma_max=high)
    field, figure = field_figure(problem, schedule, TIMES)
    arrows = np.zeros((len(TIMES), len(field.points), 2))
    laws = np.stack([field.log_density(t) for t in torch.tensor(TIMES)])
    figure.show_exact(arrows, laws)
    opened(figure.png(arrows, "title"))
    line, exact = line_figure(problem, schedule)
    opened(line.png(exact, "title"))
    densities = np.exp(laws.astype(np.float64))
    opened(figures.png(figures.marginal_distribution_figure(TIMES, field.grid, densities, densities.mean(2))))


def test_regions_of_a_flat_law_are_the_whole_torus_in_the_lightest_shade(problem, schedule):
    field, figure = field_figure(problem, schedule, TIMES[:1])
    law = np.random.default_rng(0).normal(0, 1e-7, (1, len(field.grid), len(field.grid)))
    figure.show_exact(np.zeros((1, len(field.points), 2)), law)
    pixels = figure.pixels(np.zeros((1, len(field.points), 2)), "")[..., :3]
    shades = [np.all(pixels == np.array(to_rgb(shade)) * 255, axis=2).mean() for shade in figures.SHADES]
    assert shades[0] > 0.1 and max(shades[1:]) < 0.01  # those of the key


@pytest.mark.parametrize("strays", [0, 3, 400])
def test_samples_and_radial_distribution(shaped, strays, generator):
    x = torch.cat([shaped.sample(500, generator), torch.rand(strays, *shaped.shape, generator=generator)])
    points, modes = (a.flatten(1)[:, :2].numpy() for a in (x, shaped.modes()))
    radii = metrics.distance_to_nearest_mode(x, shaped).numpy()
    opened(figures.png(figures.samples_figure(points, modes, radii > 5 * SIGMA_0, SIGMA_0, "title")))
    for width in (None, 1.03):
        opened(figures.png(figures.radial_distribution_figure(radii, SIGMA_0, x[0].numel(), "title", width)))


def test_samples_that_are_all_stray(problem):
    points, modes = np.full((5, 2), 0.5), problem.modes().flatten(1).numpy()
    opened(figures.png(figures.samples_figure(points, modes, np.ones(5, bool), SIGMA_0, "title")))
    opened(figures.png(figures.radial_distribution_figure(np.full(5, 0.35), SIGMA_0, 2, "title")))


def test_marginal_distribution(shaped, schedule):
    field, times = views.Field(shaped, schedule), np.array([0.0, 1.0])
    densities = np.exp(np.stack([field.log_density(torch.tensor(t)) for t in (0.0, 1.0)]).astype(np.float64))
    opened(figures.png(figures.marginal_distribution_figure(times, field.grid, densities, densities.mean(2))))


@pytest.mark.parametrize("values", [np.linspace(0.01, 1, 9), np.zeros(9), np.full(9, np.nan)])
def test_score_error_whatever_the_values(values):
    curves = {"one": (values, None), "other": (values, 0.1 * values), **{str(i): (values, None) for i in range(7)}}
    opened(figures.png(figures.score_error_figure(np.linspace(0, 1, 9), curves, "title")))


def test_line_redrawn_is_the_line_drawn_anew(shaped, schedule):
    used, exact = line_figure(shaped, schedule)
    before = used.png(np.full_like(exact, 3.0), "what was there before, with a longer title")
    redrawn = used.png(0.8 * exact, "now")
    assert redrawn == line_figure(shaped, schedule)[0].png(0.8 * exact, "now")
    assert (opened(redrawn) != opened(before)).any()
    assert redrawn == used.png(0.8 * exact, "now")


def test_few_colours_are_enough_for_lines(shaped, schedule):
    """A model other than that of which the colours were chosen: no pixel is far off, and nearly none is off at all."""
    line, exact = line_figure(shaped, schedule)
    model = 3 * np.roll(exact, 7, axis=1)
    off = np.abs(opened(line.png(model, "287 epochs")).astype(int) - line.pixels(model, "287 epochs")[..., :3]).max(-1)
    assert off.max() < 40 and (off > 8).mean() < 0.005


def test_field_redrawn_is_the_field_drawn_anew(shaped, schedule):
    network, t = make_network(schedule, shaped.shape), [torch.tensor(v) for v in (0.0, 0.4, 1.0)]
    truth, (field, used) = AnalyticalScoreNetwork(shaped, schedule), field_figure(shaped, schedule)

    def frame(figure, t):
        return figure.frame(f"{t}", field.arrows(network, t), field.arrows(truth, t), field.log_density(t))

    redrawn = [frame(used, t) for t in t]
    assert all(image.shape == (1080, 1920, 4) and image.dtype == np.uint8 for image in redrawn)
    assert (redrawn[0] != redrawn[1]).any()
    assert (frame(used, t[0]) == redrawn[0]).all()  # two frames with the same arguments are identical
    assert (frame(field_figure(shaped, schedule)[1], t[1]) == redrawn[1]).all()


def test_field_at_several_times_redrawn_is_the_one_drawn_anew(problem, truth, schedule):
    times, network = torch.tensor(TIMES), make_network(schedule)

    def at_all_times(function):
        return np.stack([function(t) for t in times])

    def picture(figure, model):
        figure.show_exact(at_all_times(lambda t: field.arrows(truth, t)), at_all_times(field.log_density))
        return figure.png(model, "title")

    field, used = field_figure(problem, schedule, TIMES)
    model = at_all_times(lambda t: field.arrows(network, t))
    before, redrawn = picture(used, 0 * model), picture(used, model)
    assert before != redrawn
    assert redrawn == picture(field_figure(problem, schedule, TIMES)[1], model)
    assert opened(redrawn).shape == (902, 1408, 3)


def test_model_that_has_diverged_does_not_stop_the_drawing(problem, truth, schedule):
    line, exact = line_figure(problem, schedule)
    field, figure = field_figure(problem, schedule)
    t = torch.tensor(0.3)
    for value in (np.nan, np.inf, 1e30):
        opened(line.png(np.full_like(exact, value), "title"))
        arrows = np.full_like(field.arrows(truth, t), value)
        with np.errstate(all="ignore"):
            frame = figure.frame("title", arrows, field.arrows(truth, t), field.log_density(t))
        assert frame.shape == (1080, 1920, 4)
    good = line.png(exact, "title")
    assert good == line_figure(problem, schedule)[0].png(exact, "title")  # nothing of it stays


def test_arrows_of_a_single_gaussian_lead_to_its_mode(schedule):
    problem = make_problem([[0.4, 0.6]])
    field = views.Field(problem, schedule)
    for t in (0.0, 0.3):  # sigma_eff < 0.02: one image counts
        arrows = field.arrows(AnalyticalScoreNetwork(problem, schedule), torch.tensor(t))
        displacement = (field.modes[0] - field.points + 0.5) % 1 - 0.5
        inner = np.abs(displacement).max(1) < 0.45
        np.testing.assert_allclose(arrows[inner], displacement[inner], atol=1e-4)


def test_saved_picture_is_whole_or_not_there(tmp_path):
    figures.save(np.zeros((4, 6, 3), np.uint8), tmp_path / "deep" / "picture.png")
    assert Image.open(tmp_path / "deep" / "picture.png").size == (6, 4)
    assert len(list((tmp_path / "deep").iterdir())) == 1

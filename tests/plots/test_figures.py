"""The figures draw whatever the shape of the problem, and redrawn on a kept background they are as if drawn anew."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from conftest import OTHERS, make_network, make_problem
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from mixtures import make_mixture
from PIL import Image

from utils.evaluation.sample_metrics import radii
from utils.physics.noise_schedule import ExponentialSchedule
from utils.plots import figures
from utils.plots.figures import comparison_figure, samples_comparison_figure, weights_figure
from utils.plots.score_field import ScoreFieldFigure, ScoreLineFigure
from utils.plots.style import SHADES, png
from utils.plots.views import Field, Line, Plane, magnitude_maps
from utils.score.networks import AnalyticalScoreNetwork

TIMES, END = torch.tensor([0.0, 0.5]), torch.tensor(0.001)  # and the noise width at the end
SLICE = make_problem(OTHERS[2])


def drawn(picture):
    """Return the pixels of a figure or of a PNG file, in which something is drawn."""
    image = Image.open(io.BytesIO(png(picture, compress_level=1) if isinstance(picture, Figure) else picture))
    pixels = np.asarray(image.convert("RGB"))
    assert image.format == "PNG" and pixels.min() < 50 and pixels.max() > 250
    return pixels


def words(figure):
    """Return all that is written on a figure, as one text, once it has been drawn."""
    drawn(figure)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def field_figure(problem, schedule, times=None):
    field = Field(problem, schedule)
    return field, ScoreFieldFigure(field, times)


def line_figure(problem, schedule):
    truth = AnalyticalScoreNetwork(problem, schedule)
    return ScoreLineFigure(Line(problem, 101), truth, TIMES), truth


def constant(value):
    return lambda x, t: torch.full_like(x, value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sigmas", [(1e-12, 1e-3, 1e-12), (1.0, 100.0, 50.0)])
def test_laws_at_one_point_and_without_structure_can_be_drawn(sigmas):
    low, high, sigma_d = sigmas
    problem, schedule = make_problem(sigma_d=sigma_d), ExponentialSchedule(sigma_min=low, sigma_max=high)
    field, figure = field_figure(problem, schedule, TIMES)
    figure.show_exact(constant(0.0), TIMES)
    assert figure.pixels(constant(0.0), "title").min() < 50
    line, truth = line_figure(problem, schedule)
    drawn(line.png(truth, "title"))
    drawn(figures.marginal_distribution_figure(field, TIMES))


def test_regions_of_a_flat_law_are_the_whole_torus_in_the_lightest_shade(problem, schedule):
    field, figure = field_figure(problem, schedule, TIMES[:1])
    field.log_density = lambda t: np.random.default_rng(0).normal(0, 1e-7, (len(field.grid), len(field.grid)))
    figure.show_exact(constant(0.0), TIMES[:1])
    pixels = figure.pixels(constant(0.0), "")[..., :3]
    shades = [np.all(pixels == np.array(to_rgb(shade)) * 255, axis=2).mean() for shade in SHADES]
    assert shades[0] > 0.1 and max(shades[1:]) < 0.01  # those of the key


@pytest.mark.parametrize(("problem", "strays"), [(make_problem(), 0), (SLICE, 3), (make_mixture(), 400)])
def test_pictures_of_a_run_say_what_they_show(problem, strays, schedule, generator):
    plane, truth = Plane(problem), AnalyticalScoreNetwork(problem, schedule)
    x = torch.cat([problem.sample(500, generator), torch.rand(strays, *problem.shape, generator=generator)])
    r, shown = radii(problem, x, END), plane.holds(x, END)
    far, points = (r > problem.stray_radius)[shown].numpy(), x[shown].flatten(1)[:, :2].numpy()
    place = (plane, plane.widths(END), problem.stray_radius)
    samples = figures.samples_figure(points, far, *place, "title")
    said = words(samples)
    assert f"{len(points) - far.sum():,} samples near a mode" in said and f"{far.sum():,} stray" in said
    assert plane.labels[1] in said
    assert len(samples.axes[0].patches) == len(plane.modes)  # a circle about each that lies in the plane
    said = words(figures.radial_distribution_figure(r.numpy(), x[0].numel(), "title", [(1.0, 1.03), (2.0, 1.1)]))
    assert f"{len(x):,} samples; beyond" in said and "1.030, 1.100 times as wide" in said
    maps = magnitude_maps(truth, truth, TIMES[1:])
    assert (maps[0] == maps[1]).all() and maps[1].min() >= 0 == maps[2].max()
    assert f"exact $|\\sigma s|$\n{plane.labels[1]}" in words(figures.maps_figure((0.5,), maps, plane, "title"))
    figure = figures.marginal_distribution_figure(Field(problem, schedule), TIMES[1:])
    assert ("density of the slice" in words(figure)) == plane.is_slice
    if not strays:
        drawn(samples_comparison_figure(dict.fromkeys("abcd", points), dict.fromkeys("abcd", far), plane, "title"))
        drawn(figures.samples_figure(points, ~far, *place, "all stray"))
        drawn(figures.samples_figure(points[:0], far[:0], *place, "none, as in a slice of many dimensions"))
        drawn(samples_comparison_figure({"a": points[:0]}, {"a": far[:0]}, plane, "title"))
        drawn(figures.radial_distribution_figure(35 + r.numpy(), 2, "all beyond the axis"))


@pytest.mark.parametrize("values", [(np.linspace(0.01, 1, 9), np.full(9, np.nan)), (np.zeros(9), np.zeros(9))])
def test_curves_whatever_their_values(values):
    t, (one, other) = np.linspace(0, 1, 9), values
    curves = {"one": (one, None), "other": (one, 0.1 * one), **{str(i): (other, None) for i in range(7)}}
    drawn(comparison_figure({"": {name: (t, *curve) for name, curve in curves.items()}}, "t", "error", "title"))
    panes = {"pane": {"analytical": (t, 0 * t, 0 * t), "one": (t, one, 0.1 * one), "other": (t, other, other)}}
    for signed in (False, True):
        assert "analytical (0 up to rounding)" in words(comparison_figure(panes, "t", "error", "title", signed))
    pane = ({"method": (np.array([0.1, 1]), one[:2], one[:2], one[:2])}, (one[0], 0.0, one[1]))
    drawn(weights_figure({"a": pane, "b": (pane[0], None)}, "title"))


def test_pictures_are_the_same_whatever_a_persons_matplotlibrc_says(problem, schedule):
    def pictures():
        _, figure = field_figure(problem, schedule)
        line, truth = line_figure(problem, schedule)
        comparison = comparison_figure({"pane": {"one": (TIMES.numpy(), TIMES.numpy(), None)}}, "t", "error", "title")
        figure.show_exact(truth, TIMES[1:])
        return figure.png(constant(0.1), "title"), line.png(truth, "title"), png(comparison)

    before = pictures()
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red", "lines.linewidth": 9, "axes.grid": True}):
        assert pictures() == before


@pytest.mark.parametrize("shaped", [make_problem(), SLICE])
def test_line_redrawn_is_the_line_drawn_anew_in_colours_that_are_enough(shaped, schedule):
    """The colours were chosen for another model: no pixel is far off, and nearly none is off at all."""
    used, truth = line_figure(shaped, schedule)
    before = used.png(constant(3.0), "what was there before, with a longer title")

    def model(x, t):
        return 3 * truth(x, t).roll(7, 0)

    redrawn = used.png(model, "287 epochs")
    assert redrawn == line_figure(shaped, schedule)[0].png(model, "287 epochs") != before
    off = np.abs(drawn(redrawn).astype(int) - used.pixels(model, "287 epochs")[..., :3]).max(-1)
    assert off.max() < 40 and (off > 8).mean() < 0.005


@pytest.mark.parametrize(("law", "several"), [(make_problem(), False), (SLICE, False), (make_problem(), True)])
def test_field_redrawn_is_the_field_drawn_anew(law, several, schedule):
    truth, model = AnalyticalScoreNetwork(law, schedule), make_network(schedule, law.shape)

    def picture(figure, times):
        figure.show_exact(truth, times)
        pixels = figure.pixels(model, f"{times[0]}")
        assert (drawn(figure.png(model, f"{times[0]}")) == pixels[..., :3]).all()
        return pixels

    field, used = field_figure(law, schedule, TIMES if several else None)
    one, other = (TIMES, TIMES.flip(0)) if several else TIMES[:, None]
    first, second = picture(used, one), picture(used, other)
    assert first.shape == ((902, 1408, 4) if several else (1080, 1920, 4)) and (first != second).any()
    assert (picture(used, one) == first).all()
    assert (picture(field_figure(law, schedule, TIMES if several else None)[1], other) == second).all()
    slices = ("98.9 % of the exact slice", "This is a slice in which the other coordinates are 0.7, 0.9.")
    assert [text in words(used.figure) for text in slices] == [field.plane.is_slice] * 2


def test_model_that_has_diverged_does_not_stop_the_drawing(problem, schedule):
    line, truth = line_figure(problem, schedule)
    _, figure = field_figure(problem, schedule)
    figure.show_exact(truth, TIMES[1:])
    for value in (np.nan, np.inf, 1e30):
        drawn(line.png(constant(value), "title"))
        with np.errstate(all="ignore"):
            drawn(figure.png(constant(value), "title"))
    assert line.png(truth, "title") == line_figure(problem, schedule)[0].png(truth, "title")  # nothing of it stays

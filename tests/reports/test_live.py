"""The live page computes what the Python code computes, and behaves in a browser."""

import json
import math

import pytest
import torch
from analysed import leave_run, write_run
from chromium import opened
from conftest import ROOT
from scipy import stats
from trained import equal

from utils.files import UserError
from utils.reports.experiment import control_of
from utils.reports.live import entry_of, main, write_live, write_live_of
from utils.reports.page import write_page
from utils.runs import load_score_network
from utils.runs.checkpoints import load_run
from utils.runs.published import configuration_of, published_file, read_published
from utils.runs.run import ANALYTICAL, Run, find_experiments
from utils.runs.store import facts_of
from utils.score.samplers import Sampling, sampler_width_ratio

PAGE = ROOT / "docs" / "live" / "index.html"
PATIENCE = 300  # seconds for what takes ten on an idle core
PARTICLES = 400
OTHERS = {  # of two components each, with what the page has to know
    "no_regularizer": [
        "score_network.permutation_equivariant=false",
        "noise_schedule={type: linear, sigma_min: 0.001, sigma_max: 0.5}",
    ],
    "fokker_planck_regularizer": ["toy_problem.equilibrium_relative_coordinates=[[0.2, 0.9]]"],
    "energy_network": ["noise_schedule.sigma_max=0.25"],
    "consistency_regularizer": [
        "toy_problem={type: gaussian_mixture, gaussians: ["
        "{weight: 1, sigma_d: 0.01, equilibrium_relative_coordinates: [[0.25], [0.75]]},"
        "{weight: 4, sigma_d: 0.45, equilibrium_relative_coordinates: [[0.4], [0.6]]}]}"
    ],
}


def write_analysis(output, run, /, **given):
    """Write what the analysis of a run leaves, with these numbers or other facts; return the record."""
    values = {"path_kl": given.pop("path_kl")} if "path_kl" in given else {}
    return write_run(output, **facts_of(load_run(run), Sampling()) | {"values": values} | given)


def give(browser, name, value, event="change"):
    """Give a control of the page a value, as a person does."""
    browser.evaluate(f"{{ byId('{name}').value = {value}; byId('{name}').dispatchEvent(new Event('{event}')) }}")


@pytest.fixture(scope="module")
def browser():
    with opened(PAGE) as browser:
        yield browser
        assert {url for url in browser.requests if not url.startswith("data:,")} == {PAGE.as_uri()}


def random_points(shape, n=1000):
    """Return points, half of them uniform, half near the modes of the base problem, and times; float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 2, generator=generator).double()
    near = torch.tensor([0.25, 0.75]) + 0.05 * torch.randn(n // 2, 2, generator=generator)
    x[: n // 2] = near.double() % 1
    return x.view(n, *shape), torch.linspace(0, 1, 10).double().repeat_interleave(n // 10)


def computed(browser, field, x, t):
    """Return what a field of the page, an expression, has at points x and times t."""
    arguments = f"{field}, {json.dumps(x.flatten().tolist())}, {json.dumps(t.tolist())}"
    values = browser.evaluate(f"""((field, x, t) => {{
        const out = new Float64Array(x.length);
        t.forEach((time, i) => field(x, i, i + 1, time, out));
        return [...out];
    }})({arguments})""")
    return torch.tensor(values, dtype=torch.float64).view_as(x)


def check_page(browser, networks):
    """Compare networks, by their title, and their exact scores with what the page computes, in float64."""
    for title, (network, truth) in networks.items():
        x, t = random_points(truth.problem.shape)
        entry = f"entries.find(entry => entry.title === {json.dumps(title)})"
        with torch.no_grad():
            learned, exact = network.double()(x, t), truth(x, t)
            density = truth.problem.log_density(x, truth.schedule.sigma(t))
        assert (computed(browser, f"{entry}.field", x, t) - learned).abs().max() < 1e-9  # both in float64
        assert (computed(browser, f"{entry}.problem.field", x, t) - exact).abs().max() < 1e-9
        points = json.dumps([[*p, time] for p, time in zip(x.flatten(1).tolist(), t.tolist(), strict=True)])
        found = browser.evaluate(f"{points}.map(point => {entry}.problem.logDensity(...point))")
        assert torch.tensor(found, dtype=torch.float64) == pytest.approx(density, abs=1e-8)


def test_the_published_networks_and_the_exact_score_are_those_of_torch(browser):
    names = [entry["experiment"] for entry in read_published() if entry["experiment"] != ANALYTICAL]
    assert names == find_experiments()
    truth = load_score_network(ANALYTICAL)
    check_page(browser, {name: (load_score_network(name, run_name="published"), truth) for name in names})


def test_other_problems_in_the_plane_are_computed_alike(tmp_path, training):
    loaded = {name: load_run(leave_run(name, "run1", *overrides)) for name, overrides in OTHERS.items()}
    write_live_of([write_analysis(tmp_path, one.run, path_kl=0.1) for one in loaded.values()], tmp_path)
    with opened(tmp_path / "live.html") as browser:
        check_page(browser, {name: (one.network, one.configuration.build_truth()) for name, one in loaded.items()})
        assert browser.evaluate("byId('problem').length") == 4 and not browser.evaluate("byId('problems').hidden")
        give(browser, "problem", 1)
        browser.wait_for("panes.every(pane => pane.drawn)")


def test_strays_agree_with_the_table_and_random_numbers_are_random(browser):
    """Particles of every score are carried to the end by the functions of the page. The table counts other draws, so
    the two counts differ as those of two samples from one distribution do. A score of zero lets all stray."""

    def strays_of(field):
        ends = f"carried('reverse', {field}, problems[0], {PARTICLES}, 7)"
        return browser.evaluate(f"strays(problems[0], {ends}, 0).filter(Boolean).length")

    for entry in read_published():
        field = f"entries.find(entry => entry.title === '{entry['experiment']}').field"
        found = strays_of("problems[0].field" if entry["experiment"] == ANALYTICAL else field)
        share, n = (entry["metrics"]["stray_fraction"][key] for key in ("value", "number_of_points"))
        table = [[found, PARTICLES - found], [round(share * n), n - round(share * n)]]
        assert stats.fisher_exact(table).pvalue > 1e-3
    assert strays_of("(x, begin, end, t, out) => out.fill(0, 2 * begin, 2 * end)") > 0.95 * PARTICLES
    normal = browser.evaluate("[...noiseOf(1, 50, 5000)]")
    uniform = browser.evaluate("((random) => Array.from({ length: 10000 }, random))(seeded(1))")
    for numbers, law in ((normal, stats.norm), (uniform, stats.uniform)):
        assert stats.kstest(numbers, law.cdf).pvalue > 1e-3
    same = "noiseOf(1, 50, 9)[4] === noiseOf(1, 50, 5000)[4]"  # whatever their number
    assert browser.evaluate(f"{same} && noiseOf(1, 50, 1)[0] !== noiseOf(1, 51, 1)[0]")


def test_the_samplers_reach_the_known_widths(browser):
    """With the exact score, the width that the predictor reaches is known, and the ODE's is that of the data."""
    known = sampler_width_ratio(0.01, load_score_network(ANALYTICAL).schedule, Sampling().times)
    rms = """((way, p) => {
        const x = carried(way, p.field, p, 4000, 3);
        const squares = [];
        for (let i = 0; i < x.length; i += 2) squares.push(p.radius(x[i], x[i + 1], p.sigma(0)) ** 2);
        return Math.sqrt(squares.reduce((a, b) => a + b) / squares.length / 2);
    })"""
    error = 4 / math.sqrt(2 * 8000)  # four standard errors of the rms of 8,000 normal numbers
    assert browser.evaluate(f"{rms}('reverse', problems[0])") == pytest.approx(known, abs=error)
    assert browser.evaluate(f"{rms}('ode', problems[0])") == pytest.approx(1.0, abs=error)
    forward = "strays(problems[0], carried('forward', null, problems[0], 1000, 3), 1).filter(Boolean).length"
    assert browser.evaluate(forward) == 0


def test_a_thousand_particles_run_to_the_end_in_both_panes(browser):
    browser.evaluate("byId('throw').click()")
    browser.wait_for("state.playing && state.k < 95")
    browser.evaluate("byId('play').click()")
    assert not browser.evaluate("state.playing")
    browser.evaluate("byId('play').click()")
    browser.wait_for("!state.playing && state.k === 0", PATIENCE)
    browser.wait_for("byId('live').rows[0].cells[1].textContent.includes(' of 1,000')")
    assert "t = 0.00. no_regularizer: " in browser.evaluate("byId('status').textContent")
    same = "panes.every(pane => pane.path[100].every((x, i) => x === panes[0].path[100][i]))"
    assert browser.evaluate(same) and browser.evaluate("panes.every(pane => Object.keys(pane.path).length === 101)")
    # The slider goes back along what is known; another score starts from the same points.
    give(browser, "time", 0.5, "input")
    browser.wait_for("panes.every(pane => pane.drawn.includes(' 50 '))")
    give(browser, "left", 0)
    browser.wait_for("panes[0].path[50] && !job", PATIENCE)
    assert browser.evaluate("panes[0].path[50].every((x, i) => x === panes[1].path[50][i])")  # two exact scores now
    give(browser, "left", 1)


def test_keyboard_and_pointer_show_values_and_drop_particles(browser):
    browser.evaluate("{ byId('clear').click(); panes[0].top.focus() }")
    give(browser, "time", 0.6, "input")
    browser.press("ArrowRight")
    browser.wait_for("state.pointer && byId('live').rows[1].cells[0].textContent.includes('(0.51, 0.50)')")
    x, t = torch.tensor([[[0.51], [0.5]]], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    with torch.no_grad():
        expected = load_score_network("no_regularizer", run_name="published").double()(x, t).flatten().tolist()
    shown = ", ".join(f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") for value in expected)
    assert browser.evaluate("byId('live').rows[1].cells[1].textContent") == shown
    browser.press("Enter")
    browser.wait_for("state.start === 60 && panes.every(pane => pane.path[60].length === 50)")
    browser.wait_for("!state.playing && state.k === 0", PATIENCE)
    browser.press("Escape")
    browser.wait_for("state.pointer === null")
    middle = "({left, top, width}) => ({ x: left + 0.5 * width, y: top + 0.5 * width })"
    place = browser.evaluate(f"({middle})(panes[1].top.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.send("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)
    browser.wait_for("state.start === 100 || panes[1].path[state.start].length === 50")


def test_without_motion_particles_appear_at_the_end(browser):
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    browser.wait_for("byId('play').textContent === 'To the end'")
    browser.evaluate("byId('clear').click(); window.seen = new Set()")
    browser.evaluate("window.watch = setInterval(() => seen.add(state.k), 5); byId('throw').click()")
    browser.wait_for("!state.playing && state.k === 0", PATIENCE)
    assert set(browser.evaluate("clearInterval(watch), [...seen]")) <= {100, 0, 60}
    browser.send("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize(("width", "columns"), [(1920, 2), (1280, 2), (400, 1)])
def test_the_live_page_fits_the_window(browser, width, columns):
    browser.resize(width)
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.evaluate("new Set(panes.map(pane => pane.top.getBoundingClientRect().left)).size") == columns


def test_the_page_is_small_and_is_what_template_and_weights_make(tmp_path):
    write_live(tmp_path / "index.html", read_published())
    assert (tmp_path / "index.html").read_text() == PAGE.read_text(), "write it again: python -m utils.reports.live"
    assert PAGE.stat().st_size < 1_000_000


def test_runs_are_published_with_their_numbers_and_can_be_loaded(tmp_path, training, capsys):
    run = leave_run("no_regularizer", "mine")
    write_analysis(tmp_path, run, path_kl=0.1)
    write_analysis(tmp_path, Run(ANALYTICAL), path_kl=0.0)
    assert main(["--run-name", "mine", "--output-dir", str(tmp_path)]) == 0
    ours, theirs = load_run(run), load_run(Run("no_regularizer", "published"))
    assert equal(ours.network.state_dict(), theirs.network.state_dict()) and theirs.epochs == 4
    entry, exact = read_published()
    assert entry["metrics"]["path_kl"]["value"] == 0.1 and entry["run"] == "mine" and exact["weights"] == {}
    assert configuration_of(entry) == ours.configuration
    assert '"path KL, nats": "0.100' in published_file().with_name("index.html").read_text()
    assert main(["--run-name", "other", "--output-dir", str(tmp_path)]) == 2
    assert "no run 'other' was analysed" in capsys.readouterr().err


def test_a_page_of_own_runs_is_linked_and_leaves_out_what_it_cannot_show(tmp_path, training):
    run, three = leave_run("no_regularizer"), "toy_problem.equilibrium_relative_coordinates=[[0.1],[0.4],[0.8]]"
    plane, gone = write_analysis(tmp_path, run), write_analysis(tmp_path, run, run="gone")
    retrained = write_analysis(tmp_path, run, key="0" * 16, folder="again")
    cube = write_analysis(tmp_path, leave_run("no_regularizer", "three", three))
    write_live_of([cube, gone, retrained], tmp_path)
    assert not (tmp_path / "live.html").exists() and "live.html" not in write_page(tmp_path)[0].read_text()
    write_live_of([plane, cube], tmp_path)
    assert 'href="live.html"' in write_page(tmp_path)[0].read_text()
    assert '"left_out": ["no_regularizer, three"]' in (tmp_path / "live.html").read_text()
    write_live_of([cube], tmp_path)
    assert not (tmp_path / "live.html").exists()


def test_a_page_has_the_exact_score_of_each_problem_and_no_weights_that_were_trained_on(tmp_path, training):
    two = ["toy_problem.equilibrium_relative_coordinates=[[0.2],[0.6]]"]
    own = write_analysis(tmp_path, run := leave_run("no_regularizer", "two", *two), path_kl=0.1)
    control = control_of(load_run(run))
    facts = facts_of(control, Sampling()) | {"run": control.run.name}
    exact = write_run(tmp_path, ANALYTICAL, {"path_kl": 0.0}, **{k: v for k, v in facts.items() if k != "experiment"})
    write_live_of([exact, own], tmp_path)
    assert (tmp_path / "live.html").read_text().count('"path KL, nats": "0.') == 2
    torch.save(torch.load(run.best_checkpoint) | {"epochs_done": 9}, run.best_checkpoint)
    with pytest.raises(UserError, match="or on, since it was analysed"):
        entry_of(own)

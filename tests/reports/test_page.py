"""The comparison page: what its HTML says, and how it behaves in a browser."""

import dataclasses
import math
import re

import pytest
from analysed import FACTS, FRAMES, SAMPLING, Page, write_run
from chromium import opened
from PIL import Image

from utils.evaluation.estimates import Estimate
from utils.evaluation.registry import METRICS
from utils.reports.page import write_page

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'name'"


def numbers(path_kl, strays=0.5, ode_kl=0.1):
    return {"path_kl": path_kl, "stray_fraction": strays, "ode_kl": ode_kl}


@pytest.fixture
def read(tmp_path):
    return lambda: Page(write_page(tmp_path)[0])


def test_the_best_is_the_best_method_and_neither_control_nor_oracle(tmp_path, read):
    write_run(tmp_path, "analytical", numbers(0.0, 0.0, 0.0))
    write_run(tmp_path, "told_regularizer", numbers(0.1, 0.01, 0.01), oracle=True)
    write_run(tmp_path, "no_regularizer", numbers(0.3, 0.02, 0.4))
    write_run(tmp_path, "good_regularizer", numbers(0.2, 0.02, 0.5))
    marks = {row[0]: [cell.startswith("★ best: ") for cell in row[1:]] for row in read().tables[0][1:]}
    assert marks.pop("no_regularizer") == [False, True, True]  # the first of them is a tie
    assert marks.pop("good_regularizer") == [True, True, False]
    assert marks == {"analytical control": [False] * 3, "told_regularizer oracle": [False] * 3}


BETTER = [("lower", 0.2, 0.3), ("higher", 0.3, 0.2), ("closer to 1", 1.05, 0.9), ("closer to 1", 0.95, 1.1)]
BETTER += [("closer to 0", 0.1, -0.2), ("closer to 0", -0.1, 0.2)]


@pytest.mark.parametrize(("better", "best", "other"), BETTER)
def test_what_is_better_is_what_the_metric_says(tmp_path, read, monkeypatch, better, best, other):
    monkeypatch.setitem(METRICS, "path_kl", dataclasses.replace(METRICS["path_kl"], better=better))
    write_run(tmp_path, "good_regularizer", {"path_kl": best})
    write_run(tmp_path, "no_regularizer", {"path_kl": other})
    page = read()
    assert ["best: " in page.row(name)[1] for name in ("good", "no_")] == [True, False]


def test_runs_and_pictures_stand_in_their_order_and_versions_with_their_runs(tmp_path, read):
    for name, version in (("b_regularizer", "2"), ("no_regularizer", "1"), ("a_regularizer", "1"), ("analytical", "1")):
        folder = write_run(tmp_path, name, numbers(0.1), code_version=f"version{version}").folder
        for picture in ("maps", "an_idea", "score_error"):
            Image.new("RGB", (30, 20), "white").save(folder / f"{picture}.png")
        (folder / "._maps.png").write_bytes(b"what macOS writes beside a file")
    page = read()
    first = [row[0].split()[0] for row in page.tables[0][1:]]
    assert first == ["analytical", "no_regularizer", "a_regularizer", "b_regularizer"]
    order = ("samples", "score_error", "maps", "an_idea")
    assert page.attributes("src", "img") == [f"{name}/run1/{picture}.png" for name in first for picture in order]
    assert "version1 (analytical; no_regularizer; a_regularizer) version2 (b_regularizer)" in page.text
    assert write_page(tmp_path)[1] == []


def test_numbers_are_shown_as_they_are_and_what_is_missing_as_a_dash_with_its_reason(tmp_path, read):
    share = Estimate(0.0213, 0.0014, 10, (0.0187, 0.0243))
    write_run(tmp_path, "whole", numbers(0.3, share, math.nan))
    write_run(tmp_path, "odd", {"stray_fraction": -math.inf}, left_out={"path_kl": "the score diverges"})
    page = read()
    assert page.row("whole")[1:] == ["0.300 ± 0.020", "2.13 ± 0.30", "not a number"]  # alone, so none is the best
    assert page.row("odd")[1:] == ["– the score diverges", "-inf", "– no value"]  # noqa: RUF001
    assert page.row("experiment")[2] == "strays %, ↓ lower is better" and "Unit: %." in page.text
    assert "0.0213" in page.attributes("data-value", "td")  # by which it is sorted


def test_what_a_reader_should_know_first_is_said(tmp_path, read):
    assert "No experiment has been analysed yet" in read().text
    write_run(tmp_path, "no_regularizer", numbers(0.3), epochs=200)
    page = read().text
    assert "analysed in 3.2 s" in page and "not all sampled in the same way" not in page
    assert "Know first" not in page and "different problems" not in page
    more = SAMPLING.model_dump() | {"number_of_samples": 50}
    facts = dict(sampling=more, checkpoint="last.ckpt", rise_of_validation_loss=0.08, epochs=12)
    write_run(tmp_path, "other", numbers(0.3), **facts)
    page = Page(write_page(tmp_path, ["a note"])[0]).text
    assert "not all sampled in the same way" in page and "number of samples 50" in page
    assert "Know first a note other: best.ckpt is damaged or missing, these are the weights of the last epoch" in page
    assert "other: the validation loss ended 8 % above its lowest value" in page
    assert "other: its weights are those after 12 epochs, others have up to 200" in page
    assert "no_regularizer: its weights" not in page
    write_run(tmp_path, "other", numbers(0.3), epochs=300, finished=False)
    assert "other: its training is not finished; these are the weights after 300 epochs" in read().text


def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path):
    folder = write_run(tmp_path, "no_regularizer", numbers(0.3)).folder
    write_run(tmp_path, "broken", numbers(0.3))
    (tmp_path / "sweeps" / "idea").mkdir(parents=True)
    names = ("broken/run1/metrics.json", "no_regularizer/run1/maps.png", "no_regularizer/run1/score_error.png")
    names += ("sweeps/idea/table.json",)
    for name, content in zip(names, (b"{", (folder / "samples.png").read_bytes()[:20], b"x", b"[1]"), strict=True):
        (tmp_path / name).write_bytes(content)
    path, problems = write_page(tmp_path)
    page = Page(path)
    assert sorted(f"{name}: " in line for name in names for line in problems) == [False] * 12 + [True] * 4
    assert all(f"{name}: " in page.text for name in names) and page.row("no_")[1] == "0.300 ± 0.020"


def test_a_file_that_lacks_what_the_page_needs_is_named(tmp_path):
    for fact in FACTS:
        path = write_run(tmp_path, "no_regularizer", numbers(0.3), run=f"without {fact}").folder / "metrics.json"
        path.write_text(path.read_text().replace(f'"{fact}":', '"another":'))
    page, problems = write_page(tmp_path)
    assert all(re.search(r"without (\w+)/metrics.json: not readable \(no '\1'\); analyse", line) for line in problems)
    assert len(problems) + len(Page(page).tables[0]) - 1 == len(FACTS)


def test_no_run_is_lost_where_the_base_has_changed_between_two_analyses(tmp_path, read):
    """The problem of the older record is not that of base_config.yaml any more, though its words say so."""
    older = FACTS["problem"] | {"toy_problem": FACTS["problem"]["toy_problem"] | {"sigma_d": 0.02}}
    write_run(tmp_path, "analytical", numbers(0.0))
    write_run(tmp_path, "no_regularizer", numbers(0.2), problem=older)
    page = read()
    rows = [[row[0] for row in table[1:]] for table in page.tables if table[0][0] == "experiment"]
    assert sorted(rows) == [["analytical control"], ["no_regularizer"]]
    assert "These runs are of 2 different problems" in page.text


def test_text_stays_text_and_addresses_are_quoted(tmp_path, read):
    folder, shown = "a <b> #1 50% 'x' \"y\" ü:?", "<img src=x onerror=alert(3)>"
    difference = {"<script>alert(2)</script>": [None, shown], "regularizer.weight": [None, 0.01]}
    write_run(tmp_path, HOSTILE, numbers(0.3), folder, video=True, configuration_difference=difference)
    page = read()
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1 and "b" not in tags and HOSTILE in page.text and shown in page.text
    assert ["regularizer.weight", "null", "0.01"] in page.tables[-1]
    quoted = "a%20%3Cb%3E%20%231%2050%25%20%27x%27%20%22y%22%20%C3%BC%3A%3F/run1/"
    assert set(page.attributes("src", "img", "video")) == {quoted + "samples.png", quoted + "score_field.mp4"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a page of six runs: one has no video, one a damaged one, one a hostile name."""
    output = tmp_path_factory.mktemp("page") / "an output #1"
    write_run(output, "analytical", numbers(0.0, 0.0), video=True)
    write_run(output, "no_regularizer", numbers(10.0, 0.3), video=True)
    write_run(output, HOSTILE, numbers(9.0, math.nan), "hostile", video=True)
    write_run(output, "consistency_with_analytical_guide_regularizer", numbers(2e-5, math.inf), oracle=True)
    write_run(output, "w" * 80, numbers(30.0, 0.2), "w", video=True, configuration_difference={"k" * 80: [1, "v" * 80]})
    broken = write_run(output, "x_regularizer", {}, left_out={"path_kl": "it diverges"}).folder
    (broken / "score_field.mp4").write_bytes(b"no video")
    Image.new("RGB", (1500, 20), "white").save(output / "marginal_distribution.png")
    with opened(write_page(output)[0]) as browser:
        browser.wait_for(f"{VIDEOS}.length == 4 && {VIDEOS}.every(v => v.readyState >= 2)")
        yield browser


VIDEOS = "[...document.querySelectorAll('video')].filter(v => !v.error)"
FIRST_COLUMN = "[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[0].innerText.slice(0, 5))"
SORTING = "[...document.querySelectorAll('.sortable thead th')].map(th => th.getAttribute('aria-sort'))"
COLUMN = "document.querySelectorAll('.sortable thead button')"


def frames(browser):
    """Which frame each video shows."""
    browser.wait_for(f"{VIDEOS}.every(v => !v.seeking)")
    return [math.floor(10 * time) for time in browser.evaluate(f"{VIDEOS}.map(v => v.currentTime)")]


def test_every_picture_and_video_loads_and_one_that_cannot_be_played_says_so(browser):
    browser.evaluate("[...document.images].forEach(image => { image.loading = 'eager' })")
    browser.wait_for("document.images.length == 7 && [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.evaluate(f"{VIDEOS}.every(v => v.muted && v.playsInline && v.paused)")
    assert browser.evaluate("[...document.images].every(i => i.alt.length > 10)")
    missing = "[...document.querySelectorAll('.missing')].filter(p => !p.hidden).map(p => p.innerText).sort()"
    said = ["There is no score_field.mp4 of this run.", "score_field.mp4 cannot be played."]
    assert browser.evaluate(missing) == said


def test_the_slider_moves_all_videos_also_by_the_keyboard(browser):
    for t in (0.5, 1.0, 0.2, 0.0):
        browser.evaluate(f"{{ time.value = {t}; time.dispatchEvent(new Event('input')); time.focus() }}")
        assert frames(browser) == [round(t * (FRAMES - 1))] * 4 and browser.evaluate("now.innerText") == f"{t:.2f}"
    for key, frame in (("End", FRAMES - 1), ("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2)):
        browser.press(key)
        assert frames(browser) == [frame] * 4
    assert browser.evaluate("time.getAttribute('aria-valuetext')") == "t = 0.07"


def test_one_button_plays_and_pauses_all_videos(browser):
    browser.evaluate("{ time.value = 0; time.dispatchEvent(new Event('input')); play.focus() }")
    browser.press("Enter")
    browser.wait_for(f"play.innerText == 'Pause' && {VIDEOS}.every(v => !v.paused && v.currentTime > 0.4)")
    browser.press("Enter")
    browser.wait_for(f"play.innerText == 'Play' && {VIDEOS}.every(v => v.paused)")
    (shown,) = set(frames(browser))
    assert browser.evaluate("Number(now.innerText)") == pytest.approx(shown / (FRAMES - 1), abs=0.005)
    browser.evaluate("play.click()")
    browser.wait_for(f"play.innerText == 'Play' && {VIDEOS}.every(v => v.paused)")  # it stops at the end
    assert frames(browser) == [FRAMES - 1] * 4


def test_columns_sort_as_numbers_both_ways_and_by_keyboard(browser):
    order = ["analy", "consi", "<scri", "no_re", "wwwww"]  # 0, 2e-5, 9, 10, 30
    browser.evaluate(f"{{ {COLUMN}[1].click(); {COLUMN}[1].focus() }}")
    assert browser.evaluate(FIRST_COLUMN) == [*order, "x_reg"]
    assert browser.evaluate(SORTING) == ["none", "ascending", "none", "none"]
    browser.press("Enter")
    assert browser.evaluate(FIRST_COLUMN) == [*order[::-1], "x_reg"]
    assert browser.evaluate(SORTING) == ["none", "descending", "none", "none"]
    for best in (["analy", "wwwww", "no_re"], ["no_re", "wwwww", "analy"]):
        browser.evaluate(f"{COLUMN}[2].click()")
        assert browser.evaluate(FIRST_COLUMN)[:3] == best  # not-a-number, infinite or missing is last, both ways
    browser.evaluate(f"{COLUMN}[0].click()")
    assert browser.evaluate(FIRST_COLUMN)[1:] == ["analy", "consi", "no_re", "wwwww", "x_reg"]


def test_a_columns_definition_shows_in_focus_and_escape_closes_it(browser):
    browser.evaluate(f"{COLUMN}[2].focus()")
    assert METRICS["stray_fraction"].definition in browser.evaluate("explanation.innerText")
    browser.press("Escape")
    assert browser.evaluate("explanation.hidden")
    described = "document.getElementById(button.getAttribute('aria-describedby')).innerText.length > 0"
    assert browser.evaluate(f"[...document.querySelectorAll('[aria-describedby]')].every(button => {described})")


@pytest.mark.parametrize(("width", "columns"), [(1280, 3), (400, 1)])
def test_the_page_fits_the_window_and_tables_scroll_inside(browser, width, columns):
    browser.resize(width)
    browser.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    lefts = "new Set([...document.querySelectorAll('.videos figure')].map(f => f.getBoundingClientRect().left)).size"
    assert browser.evaluate(lefts) == columns
    browser.evaluate("document.querySelector('.sortable').parentElement.scrollLeft = 1000")
    left = "document.querySelector('{}').getBoundingClientRect().left".format
    offset = f"{left('.sortable tbody th')} - {left('.scroll')}"
    assert browser.evaluate(offset) == pytest.approx(1, abs=1)  # the first column stays

"""The comparison page: what its HTML says, and how it behaves in a browser."""

import io
import json
import math
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from chromium import EXECUTABLE, Chromium
from PIL import Image

from utils.plots.video import write_video
from utils.reports.page import format_estimate, write_report
from utils.runs.loading import FORMAT_VERSION

FRAMES = 31
HOSTILE = "<script>alert(1)</script> & \"quoted\" 'name'"
METRICS = {"path_kl": "lower", "stray_fraction": "lower", "width_ratio": "closer to 1", "mode_occupancy": None}


def write_run(output, experiment, values, folder=None, run="run1", video=True, **more):
    """Write a run's folder as the analysis leaves it; values are those of METRICS, in its order."""
    folder = output / (folder or experiment) / run
    folder.mkdir(parents=True)
    metrics = {
        name: {"value": value, "standard_error": 0.01, "number_of_points": 100, "unit": "nats", "definition": name}
        | {"source": "a paper", "better": better}
        for (name, better), value in zip(METRICS.items(), values, strict=False)
        if value != "absent"
    }
    report = {"experiment": experiment, "run": run, "code_version": "abc1234", "metrics": metrics} | more
    report.setdefault("sampling", {"number_of_samples": 100, "time_steps": 10})
    (folder / "metrics.json").write_text(json.dumps(report), encoding="utf-8")
    Image.new("RGB", (30, 20), "white").save(folder / "samples.png")
    if video:
        shades = np.linspace(0, 255, FRAMES).astype(np.uint8)
        write_video((np.full((32, 64, 3), shade) for shade in shades), folder / "score_field.mp4")
    return folder


class Reader(HTMLParser):
    """The rows of every table as texts, the tags with their attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.tables, self.text, self._cell = [], [], "", None
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(" ".join(self._cell.split()))
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data

    def row(self, name):
        """The cells of the first table's row whose first cell begins with a name."""
        return next(row for row in self.tables[0] if row[0].startswith(name))


@pytest.fixture
def read(tmp_path):
    return lambda: Reader(write_report(tmp_path)[0])


def test_the_best_is_the_best_method_and_neither_control_nor_oracle(tmp_path, read):
    write_run(tmp_path, "analytical", [0.0, 0.0, 1.0], video=False)
    write_run(tmp_path, "told_regularizer", [0.1, 0.01, 1.01], video=False, oracle=True)
    write_run(tmp_path, "no_regularizer", [0.3, 0.02, 0.96], video=False)
    write_run(tmp_path, "good_regularizer", [0.2, 0.02, 1.05], video=False)
    page = read()
    best = {row[0]: ["best: " in cell for cell in row[1:]] for row in page.tables[0][1:]}
    assert best == {
        "analytical control": [False, False, False],
        "no_regularizer": [False, True, True],  # closer to 1 from below; and a tie
        "good_regularizer": [True, True, False],
        "told_regularizer oracle": [False, False, False],
    }
    assert [tag for tag, attributes in page.tags if attributes.get("class") == "best"] == ["td"] * 4


@pytest.mark.parametrize(
    ("better", "values"),
    [
        ("lower", [0.2, 0.3]),
        ("higher", [0.3, 0.2]),
        ("closer to 1", [1.05, 0.9]),
        ("closer to 1", [0.95, 1.1]),
        ("closer to 0", [0.1, -0.2]),
        ("closer to 0", [-0.1, 0.2]),
    ],
)
def test_what_is_better_is_what_the_metric_says(tmp_path, read, monkeypatch, better, values):
    monkeypatch.setitem(METRICS, "path_kl", better)
    for name, value in zip(("good_regularizer", "no_regularizer"), values, strict=True):
        write_run(tmp_path, name, [value], video=False)
    page = read()
    assert ["best: " in page.row(name)[1] for name in ("good", "no_")] == [True, False]


def test_runs_and_pictures_stand_in_their_order_and_versions_with_their_runs(tmp_path, read):
    for name, version in (("b_regularizer", "2"), ("no_regularizer", "1"), ("a_regularizer", "1"), ("analytical", "1")):
        folder = write_run(tmp_path, name, [0.1], video=False, code_version=f"version{version}")
        for picture in ("maps", "an_idea", "score_error"):
            Image.new("RGB", (30, 20), "white").save(folder / f"{picture}.png")
    page = read()
    first = [row[0].split()[0] for row in page.tables[0][1:]]
    assert first == ["analytical", "no_regularizer", "a_regularizer", "b_regularizer"]
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    order = ("samples", "score_error", "maps", "an_idea")
    assert sources == [f"{name}/run1/{picture}.png" for name in first for picture in order]
    text = " ".join(page.text.split())
    assert "version1 (analytical; no_regularizer; a_regularizer) version2 (b_regularizer)" in text


def test_a_method_alone_is_not_called_the_best(tmp_path, read):
    write_run(tmp_path, "analytical", [0.0], video=False)
    write_run(tmp_path, "no_regularizer", [0.3], video=False)
    assert "best: " not in read().text.partition("<table")[2]
    assert all("best: " not in cell for row in read().tables[0] for cell in row)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "no value"), (math.nan, "not finite"), (-math.inf, "not finite"), ("absent", "no value")],
)
def test_what_is_missing_is_a_dash_with_its_reason_and_never_wins(tmp_path, read, value, reason):
    write_run(tmp_path, "odd_regularizer", [value, 0.5], video=False)
    write_run(tmp_path, "no_regularizer", [0.3, 0.5], video=False)
    write_run(tmp_path, "other_regularizer", [0.4, 0.5], video=False)
    page = read()
    assert page.row("odd")[1] == f"– {reason}"  # noqa: RUF001
    assert "best: " in page.row("no_")[1]


def test_a_reason_that_was_recorded_is_shown(tmp_path, read):
    write_run(tmp_path, "no_regularizer", ["absent", 0.5], video=False, left_out={"path_kl": "the score diverges"})
    write_run(tmp_path, "other_regularizer", [0.4, 0.5], video=False)
    assert read().row("no_")[1] == "– the score diverges"  # noqa: RUF001


def test_a_fraction_is_shown_in_percent_and_sorted_as_it_is(tmp_path, read):
    path = write_run(tmp_path, "no_regularizer", [0.3, 0.0213], video=False) / "metrics.json"
    content = json.loads(path.read_text())
    content["metrics"]["stray_fraction"] |= {"unit": "fraction", "standard_error": 0.0014, "interval": [0.0187, 0.0243]}
    path.write_text(json.dumps(content))
    page = read()
    assert page.row("no_")[2] == "2.13 ± 0.14 95 %: 1.87 to 2.43"
    assert page.row("experiment")[2] == "stray fraction %, ↓ lower is better"
    assert "Unit: %." in page.text
    assert ("td", {"data-value": "0.0213"}) in page.tags


@pytest.mark.parametrize("seconds", [3.21, {"sampling": 1.0, "video": 2.21}, {"sampling": 1.0, "total": 3.21}])
def test_the_time_of_the_analysis_is_shown_whole(tmp_path, read, seconds):
    write_run(tmp_path, "no_regularizer", [0.3], video=False, wall_clock_seconds=seconds)
    assert "analysed in 3.2 s" in " ".join(read().text.split())


def test_an_empty_folder_makes_a_page_that_says_so(read):
    assert "No experiment has been analysed yet" in read().text


def test_a_metrics_file_with_little_in_it_is_enough(tmp_path, read):
    folder = tmp_path / "sparse" / "run2"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"metrics": {"something_new": {"value": 0.123}}, "curves": {}}')
    page = read()
    assert page.row("sparse, run2") == ["sparse, run2", "0.1230"]


def too_large_a_picture():
    """A PNG whose head promises 60,000 x 60,000 pixels, more than any reader should make room for."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "png")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_letters_that_no_file_can_hold_are_replaced(tmp_path, read):
    folder = write_run(tmp_path, "no_regularizer", [0.3], video=False)
    (folder / "metrics.json").write_text('{"experiment": "half \\ud800", "metrics": {"path_kl": {"value": 1}}}')
    assert "half ?" in read().text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"metrics": {',
        b"[1]",
        b"\xff\xfe\x00",
        b'{"metrics": 3}',
        b'{"metrics": {"path_kl": {"value": "much"}}}',
        b"[" * 100_000,
    ],
    ids=range(7),
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path, content):
    write_run(tmp_path, "no_regularizer", [0.3], video=False)
    broken = tmp_path / "broken" / "run1"
    broken.mkdir(parents=True)
    (broken / "metrics.json").write_bytes(content)
    (tmp_path / "no_regularizer" / "run1" / "score_error.png").write_bytes(b"no picture")
    (tmp_path / "no_regularizer" / "run1" / "maps.png").write_bytes(too_large_a_picture())
    path, warnings = write_report(tmp_path)
    page = Reader(path)
    names = ("broken/run1/metrics.json: ", "no_regularizer/run1/maps.png: ", "no_regularizer/run1/score_error.png: ")
    assert len(warnings) == 3
    for name in names:
        assert name in page.text and any(name in warning for warning in warnings)
    assert page.row("no_")[1] == "0.300 ± 0.010"


def test_text_stays_text_and_addresses_are_quoted(tmp_path, read):
    folder = "a <b> #1 50% 'x' \"y\" ü:?"
    difference = {"<script>alert(2)</script>": [None, "<img src=x onerror=alert(3)>"]}
    write_run(tmp_path, HOSTILE, [0.3], folder=folder, configuration_difference=difference)
    page = read()
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in [tag for tag, _ in page.tags]
    assert HOSTILE in page.text and "<img src=x onerror=alert(3)>" in page.text
    addresses = {a["src"] for tag, a in page.tags if tag in ("img", "video")}
    quoted = "a%20%3Cb%3E%20%231%2050%25%20%27x%27%20%22y%22%20%C3%BC%3A%3F/run1/"
    assert addresses == {quoted + "samples.png", quoted + "score_field.mp4"}


def test_different_samplings_are_pointed_out(tmp_path, read):
    write_run(tmp_path, "no_regularizer", [0.3], video=False)
    assert "not all sampled in the same way" not in read().text
    write_run(tmp_path, "other", [0.3], video=False, sampling={"number_of_samples": 50})
    assert "not all sampled in the same way" in read().text


def test_configuration_differences_are_shown_as_they_are_written(tmp_path, read):
    write_run(tmp_path, "other", [0.3], video=False, configuration_difference={"regularizer.weight": [None, 0.01]})
    assert ["regularizer.weight", "null", "0.01"] in read().tables[-1]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0432721, 0.0025223, ("0.0433", "0.0025")),
        (-3.2e-5, 1.1e-6, ("−3.20 × 10⁻⁵", "0.11 × 10⁻⁵")),  # noqa: RUF001
        (12345678.0, None, ("1.235 × 10⁷", "")),  # noqa: RUF001
        (1.0, 1e-12, ("1.0000", "1e-12")),
        (0.0, 0.0, ("0", "")),
        (0.0, 0.002, ("0.0000", "0.0020")),
    ],
)
def test_numbers_have_two_digits_of_their_error(value, error, text):
    assert format_estimate(value, error) == text


@pytest.mark.parametrize("value", [5e-324, -1.7e308, 1e-310, 99999.6, 0.99996])
@pytest.mark.parametrize("error", [None, 0.0, 5e-324, 1e-5, 3.0, 1e300, math.nan, math.inf])
def test_no_number_is_too_odd_to_write(value, error):
    assert all(isinstance(text, str) for text in format_estimate(value, error))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser with a page of five runs: one has no video, one a damaged one, one a hostile name."""
    if EXECUTABLE is None:
        pytest.skip("there is no Chromium to open the page with")
    output = tmp_path_factory.mktemp("page") / "an output #1"
    write_run(output, "analytical", [0.0, 0.0, 1.0, 0.5])
    write_run(output, "no_regularizer", [10.0, 0.3, 1.2, 0.5])
    write_run(output, HOSTILE, [9.0, math.nan, 1.1, 0.5], folder="hostile")
    write_run(output, "consistency_with_analytical_guide_regularizer", [2e-5, 0.1, 1.1, 0.5], oracle=True, video=False)
    write_run(output, "w" * 80, [30.0, 0.2, 1.1, 0.5], folder="w", configuration_difference={"k" * 80: [1, "v" * 80]})
    Image.new("RGB", (1500, 20), "white").save(output / "marginal_distribution.png")
    page, _ = write_report(output)
    with Chromium() as browser:
        browser.resize(1280)
        browser.open(page)
        browser.output = output
        browser.wait_for(f"{VIDEOS}.length == 4 && {VIDEOS}.every(v => v.readyState >= 2)")
        yield browser
        assert browser.complaints == []
        assert all(url.startswith((output.as_uri() + "/", "data:,")) for url in browser.requests), browser.requests


VIDEOS = "[...document.querySelectorAll('video')]"
FIRST_COLUMN = "[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[0].innerText.slice(0, 5))"
SORTING = "[...document.querySelectorAll('.sortable thead th')].map(th => th.getAttribute('aria-sort'))"


def frames(browser):
    """Which frame each video shows."""
    browser.wait_for(f"{VIDEOS}.every(v => !v.seeking)")
    return [math.floor(10 * time) for time in browser.evaluate(f"{VIDEOS}.map(v => v.currentTime)")]


def test_every_picture_and_video_loads(browser):
    browser.evaluate("[...document.images].forEach(image => { image.loading = 'eager' })")
    browser.wait_for("document.images.length == 6 && [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.evaluate(f"{VIDEOS}.every(v => v.muted && v.playsInline && v.paused && !v.error)")
    assert browser.evaluate("[...document.images].every(i => i.alt.length > 10)")


def test_the_slider_moves_all_videos(browser):
    for t in (0.5, 1.0, 0.2, 0.0):
        browser.evaluate(f"{{ time.value = {t}; time.dispatchEvent(new Event('input')) }}")
        assert frames(browser) == [round(t * (FRAMES - 1))] * 4
        assert browser.evaluate("now.innerText") == f"{t:.2f}"


def test_the_slider_obeys_the_keyboard(browser):
    browser.evaluate("time.focus()")
    for key, frame in (("End", FRAMES - 1), ("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2)):
        browser.press(key)
        assert frames(browser) == [frame] * 4
    assert browser.evaluate("time.getAttribute('aria-valuetext')") == "t = 0.07"


def test_one_button_plays_and_pauses_all_videos(browser):
    browser.evaluate("{ time.value = 0; time.dispatchEvent(new Event('input')); play.focus() }")
    browser.press("Enter")
    browser.wait_for(f"{VIDEOS}.every(v => !v.paused && v.currentTime > 0.4)")
    assert browser.evaluate("play.innerText") == "Pause"
    browser.press("Enter")
    browser.wait_for(f"{VIDEOS}.every(v => v.paused)")
    shown = frames(browser)
    assert len(set(shown)) == 1 and browser.evaluate("play.innerText") == "Play"
    assert browser.evaluate("Number(now.innerText)") == pytest.approx(shown[0] / (FRAMES - 1), abs=0.005)
    browser.evaluate("play.click()")
    browser.wait_for(f"play.innerText == 'Play' && {VIDEOS}.every(v => v.paused)")  # it stops at the end
    assert frames(browser) == [FRAMES - 1] * 4


def test_columns_sort_as_numbers_both_ways_and_by_keyboard(browser):
    column = "document.querySelectorAll('.sortable thead button')"
    browser.evaluate(f"{column}[1].click()")
    assert browser.evaluate(FIRST_COLUMN) == ["analy", "consi", "<scri", "no_re", "wwwww"]  # 0, 2e-5, 9, 10, 30
    assert browser.evaluate(SORTING) == ["none", "ascending", "none", "none"]
    browser.evaluate(f"{column}[1].focus()")
    browser.press("Enter")
    assert browser.evaluate(FIRST_COLUMN) == ["wwwww", "no_re", "<scri", "consi", "analy"]
    assert browser.evaluate(SORTING) == ["none", "descending", "none", "none"]
    for order in (["analy", "consi", "wwwww", "no_re", "<scri"], ["no_re", "wwwww", "consi", "analy", "<scri"]):
        browser.evaluate(f"{column}[2].click()")
        assert browser.evaluate(FIRST_COLUMN) == order  # what has no value is last, both ways
    browser.evaluate(f"{column}[0].click()")
    assert browser.evaluate(FIRST_COLUMN)[1:] == ["analy", "consi", "no_re", "wwwww"]


def test_a_columns_definition_shows_in_focus_and_escape_closes_it(browser):
    browser.evaluate("document.querySelectorAll('.sortable thead button')[2].focus()")
    assert "stray_fraction" in browser.evaluate("explanation.innerText")
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
    sticky = "document.querySelector('.sortable').parentElement"
    browser.evaluate(f"{sticky}.scrollLeft = 1000")
    offset = f"{sticky}.querySelector('tbody th').getBoundingClientRect().left - {sticky}.getBoundingClientRect().left"
    assert browser.evaluate(offset) == pytest.approx(1, abs=1)  # the first column stays


def test_a_video_that_cannot_be_played_says_so(tmp_path, browser):
    write_run(tmp_path, "no_regularizer", [0.3])
    broken = write_run(tmp_path, "other", [0.4], video=False)
    (broken / "score_field.mp4").write_bytes(b"no video")
    page, _ = write_report(tmp_path)
    with Chromium() as other:
        other.open(page)
        other.wait_for("[...document.querySelectorAll('.missing')].some(p => p.innerText.includes('cannot be played'))")
        other.wait_for(f"{VIDEOS}[0].readyState >= 2")
        other.evaluate("{ time.value = 1; time.dispatchEvent(new Event('input')) }")
        other.wait_for(f"{VIDEOS}[0].currentTime > 2")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "next"])
def test_run_that_a_newer_version_has_analysed_is_left_out_and_that_is_said(tmp_path, read, version):
    write_run(tmp_path, "no_regularizer", [0.3], video=False)
    write_run(tmp_path, "today_regularizer", [0.4], video=False, format_version=FORMAT_VERSION)
    write_run(tmp_path, "later_regularizer", [0.5], video=False, format_version=version)
    said = f"written by a newer version of the code: it has format {version}, and this version of the code reads"
    problem = f"later_regularizer/run1/metrics.json: {said} formats up to {FORMAT_VERSION}"
    assert write_report(tmp_path)[1] == [f"Left out of the page: {problem}"]
    page = read()
    assert problem in page.text
    assert [row[0] for row in page.tables[0][1:]] == ["no_regularizer", "today_regularizer"]

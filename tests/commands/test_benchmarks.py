"""The benchmarks measure what they say."""

import contextlib
import sys
import time

import pytest
from conftest import active_environment, make_clone

from benchmarks import epochs, processes, steps
from benchmarks.timing import exponent, medians
from utils.runs.loading import configure

SMALL = ("data.training_set_size=512", "data.validation_set_size=128")


@pytest.fixture
def clone_to_write(tmp_path, monkeypatch):
    for name, value in active_environment().items():
        monkeypatch.setenv(name, value)
    return make_clone(tmp_path / "copy")


def test_medians_are_of_each_action():
    found = medians({"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.02)}, 3)
    assert 0.001 <= found["short"] < found["long"] and 0.02 <= found["long"] < 0.1


def test_exponent_of_a_power_law():
    assert exponent({2: 3 * 2**1.5, 4: 3 * 4**1.5, 16: 3 * 16**1.5}) == pytest.approx(1.5)


def test_loop_by_hand_takes_as_long_as_its_epochs():
    epochs_by_hand, began = epochs.by_hand(), time.perf_counter()
    seconds = next(epochs_by_hand)
    assert 0 < epochs.WINDOW * seconds < time.perf_counter() - began


def test_training_stands_still_between_its_windows(clone_to_write):
    output = clone_to_write / "training" / "no_regularizer" / "output"
    with contextlib.closing(epochs.by_run_sh(clone_to_write, "one", "no_regularizer", *SMALL)) as training:
        assert next(training) > 0
        rows = (output / "one" / "curves.csv").read_text()
        time.sleep(1)  # some dozen epochs
        assert (output / "one" / "curves.csv").read_text() == rows
        assert rows.count("\n") >= epochs.WINDOW + 2
        next(training)
        assert (output / "one" / "curves.csv").read_text().count("\n") >= 2 * (epochs.WINDOW + 1) + 1


def test_training_that_cannot_be_started_says_why(clone_to_write):
    with pytest.raises(RuntimeError, match="sed: unknown key"):
        next(epochs.by_run_sh(clone_to_write, "two", "no_regularizer", "sed=1"))


def test_ratio_is_the_median_over_rounds():
    durations = {"one": [2.0, 30.0, 4.0], "other": [1.0, 10.0, 4.0]}
    assert epochs.ratio(durations, "one", "other") == 2


def test_step_of_every_size_can_be_taken():
    for sizes in steps.SIZES.values():
        steps.training_step(configure("no_regularizer", sizes[min(sizes)]))()


def test_memory_is_that_of_the_command_and_not_of_who_asks(tmp_path):
    """A process of 100 MB more than another; this one, with torch, has several times as much."""
    small, large = (
        processes.cost(sys.executable, "-c", f"x = bytearray({n} * 10**6)", cwd=tmp_path).megabytes for n in (0, 100)
    )
    assert small < 60 and large - small == pytest.approx(100, abs=10)


def test_command_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="no such thing"):
        processes.cost(sys.executable, "-c", "raise SystemExit('no such thing')", cwd=tmp_path)

"""The benchmarks measure what they say."""

import sys
import time

import pytest

from benchmarks import epochs, processes, steps
from benchmarks.timing import exponent, medians
from utils.experiments import configure


def test_medians_are_of_each_action():
    found = medians({"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.02)}, 3)
    assert 0.001 <= found["short"] < found["long"] and 0.02 <= found["long"] < 0.1


def test_exponent_of_a_power_law():
    assert exponent({2: 3 * 2**1.5, 4: 3 * 4**1.5, 16: 3 * 16**1.5}) == pytest.approx(1.5)


def test_windows_leave_out_the_warm_up():
    """Epochs of 1 s, the first ten of 5 s."""
    times = [5.0 * i for i in range(11)] + [50.0 + i for i in range(1, 31)]
    assert epochs.windows(times) == pytest.approx([1.0, 1.0, 1.0])


def test_loop_by_hand_ends_each_epoch_in_order():
    times = epochs.by_hand(3)
    assert len(times) == 3 and times == sorted(times)


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

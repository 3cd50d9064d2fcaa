"""curves.csv: no epoch is lost without a word, none is there twice, and no training ends for it."""

import math

import numpy as np
import pytest

from training.lightning_module import PATH_KL
from utils.files import UserError
from utils.runs import curves
from utils.runs.curves import HEADING, Curves, epochs_written, read_curves, rise_of_validation_loss, what_ran_away

LOSS = "score_matching_loss/validation"


@pytest.fixture
def path(tmp_path):
    """The curves of ten epochs."""
    path = tmp_path / "run" / "curves.csv"
    written = Curves(path, 0)
    for epoch in range(10):
        written.append(epoch, {LOSS: 0.5 + epoch})
    return path


def epochs(path):
    return read_curves(path)["epoch"].tolist()


def test_loss_that_ends_far_above_its_lowest_value_is_named(tmp_path):
    """It falls to 0.46 and ends at 0.5; noise of one epoch is no rise, and of few epochs nothing is said."""
    path = tmp_path / "curves.csv"
    written = Curves(path, 0)
    for epoch, loss in enumerate([0.5] * 9 + [0.46] * 20 + [0.4, 0.52] + [0.5] * 10):
        assert rise_of_validation_loss(path) is None or epoch >= 10
        written.append(epoch, {LOSS: loss})
    assert rise_of_validation_loss(path) == pytest.approx(0.5 / 0.454 - 1)
    assert "ended 10 % above its lowest value" in what_ran_away(rise_of_validation_loss(path))
    assert what_ran_away(0.019) == what_ran_away(None) == ""
    written.append(41, {LOSS: math.inf})  # the epoch that ends such a training
    assert rise_of_validation_loss(path) == pytest.approx(0.5 / 0.454 - 1)
    path.write_text("damaged")
    assert rise_of_validation_loss(path) is None


def test_what_is_written_is_read_also_after_a_kill_in_the_middle_of_a_line(path, capsys):
    """Killed while it wrote epoch 10, of which the "1" is on disk; the last checkpoint holds 8 epochs."""
    found = read_curves(path)
    assert tuple(found) == curves.COLUMNS and PATH_KL in found
    assert found["epoch"].tolist() == list(range(10)) and np.all(found[LOSS] == 0.5 + np.arange(10))
    assert np.all(np.isnan(found["regularizer/training"]))
    with path.open("a") as file:
        file.write("1")
    assert epochs(path) == list(range(10)) and epochs_written(path) == 10
    again = Curves(path, 8)
    for epoch in range(8, 12):
        again.append(epoch, {LOSS: 0.5 + epoch, "regularizer/training": 1.0})
    assert epochs(path) == list(range(12))
    weights = read_curves(path)["regularizer/training"]
    assert math.isnan(weights[7]) and weights[8] == 1
    Curves(path, 0)  # from the start
    assert path.read_text() == HEADING + "\n" and capsys.readouterr().err == ""
    path.unlink()
    assert epochs_written(path) == 0
    Curves(path, 10)
    assert "10 of 10 epochs" in capsys.readouterr().err


DAMAGES = {  # what is written over the file -> what is said of it, and how many epochs are left
    "empty": (lambda text: b"", "holds no epoch", 0),
    "other columns": (lambda text: text.replace("learning_rate", "rate").encode(), "line 1 is damaged", 0),
    "half a line": (lambda text: text.replace("4,,4.5", "4,,4", 1).replace("4,,,,", "4", 1).encode(), "line 6 is", 9),
    "too long": (lambda text: text.replace("\n4,", "\n" + "4" * 5000 + ",", 1).encode(), "line 6 is damaged", 9),
    "two headings": (lambda text: f"{HEADING}\n{text}".encode(), "line 2 is damaged", 10),
}


@pytest.mark.parametrize(("change", "text", "left"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named_and_a_training_goes_on(path, capsys, change, text, left):
    path.write_bytes(change(path.read_text()))
    with pytest.raises(UserError, match=f"curves.csv: {text}"):
        read_curves(path)
    before = path.read_bytes()
    Curves(path, 10).append(10, {LOSS: 10.5})
    assert left == 10 or path.with_name("curves.damaged.csv").read_bytes() == before
    said = capsys.readouterr().err
    assert said == "" if left == 10 else f"curves.csv: {10 - left} of 10 epochs are damaged or missing" in said
    assert epochs(path) == [*(range(10) if left == 10 else [e for e in range(10) if left and e != 4]), 10]


@pytest.mark.parametrize(("start", "end"), [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_file_that_a_spreadsheet_has_saved_loses_nothing(path, capsys, start, end):
    before = path.read_bytes()
    path.write_bytes(start + before.replace(b"\n", end))
    assert epochs(path) == list(range(10))
    Curves(path, 10)
    assert path.read_bytes() == before and capsys.readouterr().err == ""

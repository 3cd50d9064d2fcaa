"""Files are whole or not there."""

import os
import subprocess
import sys
import time

import pytest

from utils.files import atomic_write, error_message, locked


def test_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "down" / "numbers.json"
    for content in ("old", "new"):
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent and temporary.suffix == ".json"
            temporary.write_text(content[:1])
            assert not path.exists() if content == "old" else path.read_text() == "old"
            temporary.write_text(content)
        assert path.read_text() == content and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "numbers.json"
    path.write_text("old")
    with pytest.raises(error or FileNotFoundError), atomic_write(path) as temporary:
        if error:  # else nothing is written, which is an error as well
            temporary.write_text("half")
            raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_error_names_the_file_that_was_meant_and_is_said_without_its_number(tmp_path):
    path = tmp_path / "numbers.json"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic_write(path) as temporary:
        temporary.write_text("new")
    assert caught.value.filename == str(path) and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomic_write(path):
        raise OSError(28, "No space left on device")  # as a write to a full disk does, without a name
    assert error_message(OSError(28, "No space left on device")) == "No space left on device"
    assert error_message(AssertionError()) == "AssertionError"


def test_what_a_killed_process_left_is_removed_after_a_day_and_nothing_else(tmp_path):
    for name, changed in ((".123-numbers.json", 0), (".12-numbers.json", time.time()), (".my-numbers.json", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (changed, changed))
    with atomic_write(tmp_path / "numbers.json") as temporary:
        temporary.touch()
    assert {found.name for found in tmp_path.iterdir()} == {"numbers.json", ".12-numbers.json", ".my-numbers.json"}


def test_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "deep" / ".run1.lock"
    hold = "with f.locked(pathlib.Path(sys.argv[1])): print('held', flush=True), time.sleep(60)"
    command = [sys.executable, "-c", f"import pathlib, sys, time, utils.files as f\n{hold}", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"^process {process.pid} on "), locked(path):
            pass
        process.kill()
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")

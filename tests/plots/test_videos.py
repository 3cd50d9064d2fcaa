"""Videos: what every browser plays, or a sentence that says why there is none. The page's tests play some."""

import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from conftest import executable

from utils.plots.video import VideoError, write_video

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def frames(number, height=64, width=96):
    """Yield grey frames, brighter from one to the next."""
    for i in range(number):
        yield np.full((height, width, 3), 20 + 8 * i, np.uint8)


def test_every_frame_comes_back_in_its_colour_and_it_is_what_browsers_play_while_they_load_it(tmp_path):
    path = tmp_path / "a folder: with ünusual letters" / "video.mp4"
    colours = [(20 + 8 * i,) * 3 for i in range(10)] + [(230, 159, 0), (86, 180, 233), (213, 94, 0)]
    write_video((np.full((64, 96, 3), colour, np.uint8) for colour in colours), path, frames_per_second=5)
    options = ["-vf", "scale=in_color_matrix=bt709:in_range=tv"]  # what players take high definition for
    command = [FFMPEG, "-hide_banner", "-i", str(path), *options, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.uint8).reshape(-1, 64, 96, 3).mean((1, 2))
    # Rounding in the narrower range of video and its compression; with the matrix of standard definition 10.
    assert found.shape == (13, 3) and np.abs(found - colours).max() < 5
    assert [left.name for left in path.parent.iterdir()] == ["video.mp4"]
    for words in (b"Video: h264", b"yuv420p(tv, bt709", b"96x64", b"5 fps"):
        assert words in done.stderr.partition(b"Output")[0]
    content, boxes = path.read_bytes(), []
    while content:  # the parts of an mp4 file: length, name, content
        boxes.append(content[4:8])
        content = content[int.from_bytes(content[:4], "big") :]
    assert boxes.index(b"moov") < boxes.index(b"mdat")


def test_frames_that_end_in_an_error_leave_the_old_video_as_it_was(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_video((1 / (2 - i) and next(frames(1)) for i in range(5)), path)
    with pytest.raises(VideoError, match="height not divisible by 2"):
        write_video(frames(3, height=63), path)
    assert [left.read_text() for left in tmp_path.iterdir()] == ["old"]


FAILING = {
    "at the end": (
        "cat >/dev/null; output=${@: -2:1}; echo half >\"${output#file:}\"; echo 'bad index: é' >&2; exit 1",
        "exit status 1: bad index: é",
    ),
    "never there": (None, "ffmpeg could not be started: [Errno 2] No such file or directory"),
    "in silence": ("exit 7", "exit status 7: no message"),
    "after many words": ("yes words | head -c 300000 >&2; echo the end >&2; exit 1", "the end"),  # more than a pipe
}


@pytest.mark.parametrize(("script", "text"), FAILING.values(), ids=FAILING.keys())
def test_failing_ffmpeg_shows_its_message_and_leaves_no_half_video(tmp_path, monkeypatch, script, text):
    fake = tmp_path / "ffmpeg"
    if script:
        executable(fake, f"#!/usr/bin/env bash\n{script}\n")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    path = tmp_path / "out" / "video.mp4"
    with pytest.raises(VideoError, match=re.escape(text)) as caught:
        write_video(frames(20, 256, 256), path)  # 4 MB, more than a pipe holds
    assert script is None or str(path) in str(caught.value)
    assert not list(path.parent.iterdir())

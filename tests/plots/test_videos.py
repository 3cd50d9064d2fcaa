"""Videos: what every browser plays, or a sentence that says why there is none."""

import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from chromium import EXECUTABLE, Chromium

from utils.plots.video import VideoError, write_video

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def frames(number, height=64, width=96):
    """Yield grey frames, brighter from one to the next."""
    for i in range(number):
        yield np.full((height, width, 3), 20 + 8 * i, np.uint8)


def described(path):
    return subprocess.run([FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True).stderr


def decoded(path, height=64, width=96):
    options = ["-vf", "scale=in_color_matrix=bt709:in_range=tv"]  # what players take high definition for
    raw = subprocess.run(
        [FFMPEG, "-v", "error", "-i", str(path), *options, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def top_level_boxes(path):
    """Return the names of the parts of an mp4 file, in their order."""
    content, names = path.read_bytes(), []
    while content:
        names.append(content[4:8].decode())
        content = content[int.from_bytes(content[:4], "big") :]
    return names


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_frame_comes_back(tmp_path):
    path = tmp_path / "a folder: with ünusual letters" / "video.mp4"
    write_video(frames(13), path)
    pictures = decoded(path)
    assert pictures.shape == (13, 64, 96, 3)
    # Rounding in the narrower range of video and its compression cost a few of 255 levels.
    assert np.abs(pictures.mean((1, 2, 3)) - [20 + 8 * i for i in range(13)]).max() < 3
    assert left_in(path.parent) == ["video.mp4"]


def test_colours_come_back(tmp_path):
    colours = [(230, 159, 0), (86, 180, 233), (213, 94, 0), (255, 255, 255), (0, 0, 0)]
    write_video((np.full((64, 96, 3), colour, np.uint8) for colour in colours), tmp_path / "video.mp4")
    colour = decoded(tmp_path / "video.mp4").mean((1, 2))
    assert np.abs(colour - colours).max() < 5  # with the matrix of standard definition it would be 10


def test_it_is_what_browsers_play_while_they_load_it(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(frames(5), path, frames_per_second=5)
    said = described(path)
    assert "Video: h264" in said and "yuv420p(tv, bt709" in said and "96x64" in said and "5 fps" in said
    boxes = top_level_boxes(path)
    assert boxes.index("moov") < boxes.index("mdat")


@pytest.mark.parametrize(
    ("pictures", "error", "text"),
    [
        (lambda: iter(()), ValueError, "at least one frame"),
        (lambda: frames(3, height=63), ValueError, "even width and height, and the frames are 96 x 63"),
        (lambda: iter([*frames(2), *frames(1, width=98)]), ValueError, r"Frame 2 is \(64, 98, 3\)"),
        (lambda: iter([*frames(1), *(f.astype(float) for f in frames(1))]), ValueError, "Frame 1 .* of float64"),
        (lambda: (1 / (2 - i) and next(frames(1)) for i in range(5)), ZeroDivisionError, "division"),
    ],
)
def test_bad_frames_leave_the_old_video_as_it_was(tmp_path, pictures, error, text):
    path = tmp_path / "video.mp4"
    path.write_text("old")
    with pytest.raises(error, match=text):
        write_video(pictures(), path)
    assert path.read_text() == "old"
    assert left_in(tmp_path) == ["video.mp4"]


FAILING = {
    "at once": ("echo 'no such encoder: é' >&2; exit 1", "exit status 1: no such encoder: é"),
    "half way": ("head -c 50000 >/dev/null; echo 'disk full' >&2; exit 3", "exit status 3: disk full"),
    "at the end": (
        "cat >/dev/null; output=${@: -2:1}; echo half >\"${output#file:}\"; echo 'bad index' >&2; exit 1",
        "exit status 1: bad index",
    ),
    "in silence": ("exit 7", "exit status 7: it said nothing"),
    "killed": ("kill -9 $$", "exit status -9"),
    "after many words": ("yes words | head -c 300000 >&2; echo the end >&2; exit 1", "the end"),
    "though it is content": ("exec 0<&-; exit 0", "exit status 0"),  # it has not taken all the frames
}


@pytest.mark.parametrize(("script", "text"), FAILING.values(), ids=FAILING.keys())
@pytest.mark.parametrize("old", [None, "old"])
def test_failing_ffmpeg_shows_its_message_and_leaves_no_half_video(tmp_path, monkeypatch, script, text, old):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    path = tmp_path / "out" / "video.mp4"
    if old:
        path.parent.mkdir()
        path.write_text(old)
    with pytest.raises(VideoError, match=re.escape(text)) as caught:
        write_video(frames(20, 256, 256), path)  # 4 MB, more than a pipe holds
    assert str(path) in str(caught.value)
    assert [left.read_text() for left in path.parent.iterdir()] == ([old] if old else [])


def test_missing_ffmpeg_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "nothing"))
    with pytest.raises(VideoError, match=r"ffmpeg could not be started: .*No such file"):
        write_video(frames(3), tmp_path / "video.mp4")
    assert left_in(tmp_path) == []


@pytest.mark.skipif(EXECUTABLE is None, reason="no chromium on PATH")
def test_browser_plays_it(tmp_path):
    write_video(frames(10), tmp_path / "video.mp4")
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "video.mp4").read_bytes()[:600])
    page = tmp_path / "page.html"
    page.write_text(
        '<!DOCTYPE html><video src="video.mp4" muted preload="auto"></video><video src="broken.mp4"></video>'
    )
    with Chromium() as browser:
        browser.open(page)
        browser.evaluate("void ([whole, broken] = document.querySelectorAll('video'))")
        browser.wait_for("whole.readyState >= 2")
        assert browser.evaluate("[whole.duration, whole.videoWidth, whole.videoHeight]") == [1, 96, 64]
        browser.evaluate("void whole.play()")
        browser.wait_for("whole.ended && !whole.error")
        assert browser.evaluate("broken.readyState") == 0  # by now it would have loaded as well, were it whole

"""Frames in, an H.264 video out: ffmpeg reads the raw pixels from a pipe."""

import contextlib
import itertools
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from utils.files import UserError, atomic_write

FRAMES_PER_SECOND = 10  # so that 51 frames take five seconds
# What every player can decode, without a loss that one sees, in half the time of the next slower preset; the index
# comes first, so that a browser plays while it loads; the colours are what players take high definition for.
CODEC = {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": 18, "preset": "superfast", "movflags": "+faststart"}
COLOURS = {"vf": "scale=out_color_matrix=bt709:out_range=tv", "colorspace": "bt709", "color_range": "tv"}


class VideoError(UserError):
    """ffmpeg could not be started or failed. The text ends with ffmpeg's own message."""


def write_video(frames: Iterable[np.ndarray], path: Path, frames_per_second: float = FRAMES_PER_SECOND) -> None:
    """Write frames, each (height, width, 3 or 4) of 8 bits with even sizes, RGB or RGBA, as an mp4 file.
    Raises VideoError when ffmpeg fails. Any error, also in the frames' iterator, leaves an older video as it was."""
    frames = iter(frames)
    first = next(frames)
    height, width, channels = first.shape
    pixels = {"s": f"{width}x{height}", "pix_fmt": {3: "rgb24", 4: "rgba"}[channels], "framerate": frames_per_second}
    with atomic_write(path) as temporary, tempfile.TemporaryFile() as messages:
        stream = ffmpeg.input("pipe:", format="rawvideo", **pixels)  # a colon in a path would look like a protocol
        stream = stream.output(f"file:{temporary}", loglevel="error", **CODEC, **COLOURS)
        try:  # ffmpeg-python words the command, no more: nobody maintains it
            command = stream.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages)  # no pipe, which may fill up
        except (OSError, RuntimeError) as error:
            raise VideoError(f"ffmpeg could not be started: {error}") from error
        assert process.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError), process:  # it has ended early, and its message says why
            for frame in itertools.chain([first], frames):
                process.stdin.write(frame.tobytes())
        if process.returncode != 0:
            messages.seek(0)
            text = messages.read().decode(errors="replace").strip() or "no message"
            raise VideoError(f"{path}: ffmpeg failed with exit status {process.returncode}: {text}")

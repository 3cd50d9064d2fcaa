"""Frames in, an H.264 video out: ffmpeg reads the raw pixels from a pipe."""

import contextlib
import itertools
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from utils.files import UserError, atomic_write

FRAMES_PER_SECOND = 10  # so that 51 frames take five seconds


class VideoError(UserError):
    """ffmpeg could not be started or failed. The text ends with ffmpeg's own message."""


def write_video(frames: Iterable[np.ndarray], path: Path, frames_per_second: float = FRAMES_PER_SECOND) -> None:
    """Write frames, each (height, width, 3 or 4) of 8 bits with even sizes, RGB or RGBA, as an mp4 file.

    Raises VideoError when ffmpeg fails. An error, here or in the iterator of the frames, leaves no partial file, and an
    older video as it was.
    """
    frames = iter(frames)
    first = next(frames)
    height, width, channels = first.shape
    pixels = {"s": f"{width}x{height}", "pix_fmt": {3: "rgb24", 4: "rgba"}[channels]}
    with atomic_write(path) as temporary:
        process = _start_ffmpeg(temporary, pixels, frames_per_second)
        assert process.stdin is not None and process.stderr is not None  # pipes were asked for
        words: list[bytes] = []  # read all the while: a full pipe would stop ffmpeg, and then us, for ever
        reader = threading.Thread(target=lambda: words.append(process.stderr.read()), daemon=True)
        reader.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended early, and its message says why
                for frame in itertools.chain([first], frames):
                    process.stdin.write(frame.tobytes())
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        finally:
            process.kill()
            process.wait()
            reader.join(5)
        if process.returncode != 0:
            text = b"".join(words).decode(errors="replace").strip() or "no message"
            raise VideoError(f"{path}: ffmpeg failed with exit status {process.returncode}: {text}")


def _start_ffmpeg(path: Path, pixels: dict[str, str], frames_per_second: float) -> subprocess.Popen:
    """The only place that knows ffmpeg-python, which nobody maintains any more."""
    stream = (
        ffmpeg.input("pipe:", format="rawvideo", framerate=frames_per_second, **pixels)
        .output(
            f"file:{path}",  # or a colon in the path would look like a protocol
            vcodec="libx264",
            pix_fmt="yuv420p",  # what every player can decode
            crf=18,  # no loss that one sees
            preset="superfast",  # half the time of the next slower one, for files of one or two megabytes
            vf="scale=out_color_matrix=bt709:out_range=tv",  # what players take high definition for
            colorspace="bt709",
            color_range="tv",
            movflags="+faststart",  # the index comes first, so that a browser plays while it loads
            loglevel="error",
        )
        .overwrite_output()
    )
    try:
        return stream.run_async(cmd=imageio_ffmpeg.get_ffmpeg_exe(), pipe_stdin=True, pipe_stderr=True)
    except (OSError, RuntimeError) as error:
        raise VideoError(f"ffmpeg could not be started: {error}") from error

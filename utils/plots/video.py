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

from utils.files import replacing

FRAMES_PER_SECOND = 10  # so that 51 frames take five seconds


class VideoError(RuntimeError):
    """ffmpeg could not be started or failed. The message ends with ffmpeg's own."""


def write_video(frames: Iterable[np.ndarray], path: Path, frames_per_second: float = FRAMES_PER_SECOND) -> None:
    """Write frames, each (height, width, 3 or 4) of 8 bits with even sizes, RGB or RGBA, as an mp4 file.

    Raises ValueError for frames that cannot be encoded and VideoError when ffmpeg fails. What goes wrong, here or in
    the iterator of the frames, leaves no partial file, and an older video as it was.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: a video needs at least one frame, and there was none.")
    height, width, channels = first.shape
    if height % 2 or width % 2:
        raise ValueError(f"{path}: H.264 needs an even width and height, and the frames are {width} x {height} pixels.")
    with replacing(path) as temporary:
        pixels = {"s": f"{width}x{height}", "pix_fmt": {3: "rgb24", 4: "rgba"}[channels]}
        process = _start_ffmpeg(temporary, pixels, frames_per_second)
        _encode(process, _raw(itertools.chain([first], frames), first.shape), path)


def _start_ffmpeg(path, pixels, frames_per_second) -> subprocess.Popen:
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


def _raw(frames, shape):
    for number, frame in enumerate(frames):
        if frame.shape != shape or frame.dtype != np.uint8:
            raise ValueError(f"Frame {number} is {frame.shape} of {frame.dtype}, and {shape} of uint8 was expected.")
        yield frame.tobytes()


def _encode(process, frames, path):
    """Feed ffmpeg until the frames end, or ffmpeg does."""
    messages = []  # read all the while: a full pipe would stop ffmpeg, and then us, for ever
    reader = threading.Thread(target=lambda: messages.append(process.stderr.read()), daemon=True)
    reader.start()
    try:
        complete = all(_accepts(process.stdin.write, frame) for frame in frames) and _accepts(process.stdin.close)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(None if complete else 10)  # who closes the pipe early is about to end: let it say why
    finally:
        if process.poll() is None:
            process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        reader.join()
        process.stderr.close()
    if process.returncode != 0 or not complete:
        said = b"".join(messages).decode(errors="replace").strip() or "it said nothing"
        raise VideoError(f"{path}: ffmpeg failed with exit status {process.returncode}: {said}")


def _accepts(action, *arguments) -> bool:
    """Whether ffmpeg still reads; when it has ended early, its exit status and message say why."""
    try:
        action(*arguments)
    except BrokenPipeError:
        return False
    return True

"""Atomic file writes, locks between processes, and how a command ends: errors and signals as the user reads them."""

import contextlib
import fcntl
import glob
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class UserError(Exception):
    """Something the person at the terminal can mend; its text says what, where and how."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds, remove it when it does not.

    An OSError without a file name (a full disk), or with the temporary one, gets `path` as its file name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".[0-9]*-{glob.escape(path.name)}"):  # of a process that was killed
        with contextlib.suppress(OSError):  # another process removes it, or it is another person's
            if old.stat().st_mtime < time.time() - 86_400:  # seconds, a day
                old.unlink()
    temporary = path.with_name(f".{os.getpid()}-{path.name}")  # the suffix stays, so writers know the format
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file during the block. It ends with the process, however that ends; the file stays.

    Raises BlockingIOError, whose text names the process, where another one holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BlockingIOError(file.read(200).strip() or "another process") from error
        except OSError as error:
            text = "this file system has no locks, without which two processes could write one run; use another one"
            raise UserError(f"{path}: {error.strerror}: {text}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def error_message(error: Exception) -> str:
    """Return an exception as text for the terminal: the file name first, without the error number."""
    if isinstance(error, FileExistsError):
        return f"{error.filename}: a file is where a folder should be"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@contextlib.contextmanager
def signals_to(handler: Callable | None = None) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM call `handler` during the block; after it they go where they went before it.

    Without a handler they are only given back, whatever the block did to them. Other threads than the first have none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, old in before.items():
            signal.signal(number, handler or old)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def run_command(action: Callable[[], int], debug: bool, stopped: str) -> int:
    """Return the exit status of a command: that of the action, 2 after an error, 130 after a Ctrl-C or SIGTERM.

    An error that a user can mend is printed without its traceback, which `debug` shows; `stopped` is said on a signal.
    """
    for stream in (sys.stdout, sys.stderr):  # where a terminal has no ± it shows ?, instead of ending the command
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    with signals_to(signal.default_int_handler):
        try:
            return action()
        except KeyboardInterrupt:
            print(stopped, file=sys.stderr)
            return 130
        except (UserError, OSError) as error:
            if debug:
                raise
            print(error_message(error), file=sys.stderr)
            return 2

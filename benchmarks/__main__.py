"""`python -m benchmarks`: the ratios that justify design decisions, in about five minutes on one core.

Actions are measured in turn, on one thread; medians over repeats. `--write` puts the table, with machine and date, into
README.md here.
"""

import argparse
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median

import torch

from benchmarks import derivatives, epochs
from utils.runs import run as runs

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def rows() -> Iterator[tuple[str, str]]:
    """What was measured, and the result."""
    found = epochs.seconds_an_epoch()
    yield "epoch by hand", f"{1e3 * median(found[epochs.BY_HAND]):.1f} ms"
    for name in found:
        if name.startswith(runs.BASELINE):
            yield f"epoch of {name}", f"{epochs.ratio(found, name, epochs.BY_HAND):.2f} by hand"
        elif name != epochs.BY_HAND:
            yield f"epoch of {name}", f"{epochs.ratio(found, name, epochs.PLAIN):.2f} plain epochs"
    for points in (64, 512):
        forward, reverse = derivatives.seconds(points).values()
        text = f"{1e3 * reverse:.1f} ms : {1e3 * forward:.1f} ms = {reverse / forward:.1f}"
        yield f"derivatives at {points} points, torch.func against forward mode", text


def main() -> None:
    """Print the table row by row, and write it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    lines = [f"`python -m benchmarks` on {machine}, torch {torch.__version__}, {date.today()}:"]
    lines += ["", "| what | result |", "|---|---|"]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:  # so that nobody's runs are touched
        left_out = shutil.ignore_patterns("output", "config.yaml", "*.py", "__pycache__")
        runs.TRAINING = Path(shutil.copytree(runs.TRAINING, Path(folder) / "training", ignore=left_out))
        runs.ROOT = runs.TRAINING.parent
        for row in rows():
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    if write:
        text = README.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        README.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()

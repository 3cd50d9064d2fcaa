"""`python -m benchmarks`: what is fast here and what is not, in about ten minutes on one core.

Every row is a ratio, or a time beside its target, measured in one run: actions interleaved, medians over repeats, one
thread. `--write` puts the table with machine, date and command into README.md here.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median

import torch

from benchmarks import analysis, epochs, processes, steps
from benchmarks.timing import exponent
from utils.runs.loading import ROOT

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
PLAIN = "no_regularizer, line figure every 10 epochs"


def epoch_rows(clone: Path) -> Iterator[tuple[str, str, str]]:
    """(a), (d) and the epochs of the regularizers: what, found, at most."""
    found = epochs.seconds_an_epoch(clone)

    def by_hand(row):
        return epochs.ratio(found, row, epochs.BY_HAND)

    yield "(a) epoch by hand", f"{1e3 * median(found[epochs.BY_HAND]):.1f} ms", ""
    every, none = "no_regularizer, line figure every epoch", "no_regularizer, no figure"
    for row, target in ((PLAIN, "1.5"), (every, "2.5"), (none, "")):
        yield f"(a) epoch of {row}", f"{by_hand(row):.2f} by hand", target
    milliseconds = 1e3 * (median(found[every]) - median(found[none]))
    yield (
        "(d) one line figure for TensorBoard",
        f"{milliseconds:.0f} ms, {by_hand(every) - by_hand(none):.2f} by hand",
        "",
    )
    targets = {"fokker_planck_regularizer": "2", "consistency_regularizer": "1.7"}
    for row in found:
        if row != epochs.BY_HAND and "no_regularizer" not in row:
            yield f"(b) epoch of {row}", f"{epochs.ratio(found, row, PLAIN):.2f} plain epochs", targets.get(row, "")


def step_rows() -> Iterator[tuple[str, str, str]]:
    """(b), (c) and (h)."""
    found = steps.regularizer_steps()
    plain = found.pop("no_regularizer")
    yield "(b) plain training step", f"{1e3 * plain:.2f} ms", ""
    for row, seconds in found.items():
        yield f"(b) step of {row}", f"{seconds / plain:.2f} plain steps", ""
    for points in (64, 512):
        forward, reverse = steps.derivative_passes(points).values()
        what = f"(c) derivatives at {points} points, torch.func against forward propagation"
        yield what, f"{1e3 * reverse:.1f} ms : {1e3 * forward:.1f} ms = {reverse / forward:.1f}", ""
    for key in steps.SIZES:
        seconds = steps.growth(key)
        first, last = min(seconds), max(seconds)
        ratio = f"{seconds[last] / seconds[first]:.1f} times, exponent {exponent(seconds):.2f}"
        yield f"(h) plain step, {key} {first} to {last}", ratio, ""


def analysis_rows() -> Iterator[tuple[str, str, str]]:
    """(e) and (f)."""
    found = analysis.sampling_seconds()
    for n, seconds in found.items():
        yield f"(e) a sample's step, {n} steps", f"{1e6 * seconds / analysis.SAMPLES / n:.2f} us", ""
    hundred = 10 * found[100] * 10_000 / analysis.SAMPLES
    yield "(e) 100,000 samples of 100 steps, from 10,000", f"{hundred:.1f} s", "20 s"
    for row, seconds in analysis.frame_seconds().items():
        yield f"(f) video frame, {row}", f"{1e3 * seconds:.0f} ms", "80 ms" if "encoded" in row else ""


def process_rows(clone: Path) -> Iterator[tuple[str, str, str]]:
    """(g), and memory."""
    found = processes.start_up(clone)
    yield "(g) importing torch and Lightning alone", f"{found['import']:.1f} s", ""
    yield "(g) run.sh to the end of the first epoch", f"{found['first epoch']:.1f} s", "6 s"
    yield "(g) of it beyond the imports", f"{found['first epoch'] - found['import']:.1f} s", "1.5 s"
    yield "(g) analyse_experiments.py --help", f"{found['help']:.2f} s", "0.5 s"
    for row, megabytes in processes.memory(clone).items():
        yield f"peak memory, {row}", f"{megabytes:.0f} MB", {"training": "700 MB", "analysis": "900 MB"}[row]


def machine() -> str:
    """Return what the numbers depend on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {date.today()}"
    )


def main() -> None:
    """Print the table row by row, and write it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "VIRTUAL_ENV": sys.prefix}
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = [f"`python -m benchmarks` on {machine()}:", "", "| what | found | at most |", "|---|---|---|"]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:  # so that nobody's runs are touched
        left_out = shutil.ignore_patterns(".*", "output", "config.yaml", "__pycache__", "generated_artifacts")
        clone = Path(shutil.copytree(ROOT, Path(folder) / "clone", ignore=left_out))
        for rows in (epoch_rows(clone), step_rows(), analysis_rows(), process_rows(clone)):
            for row in rows:
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    if write:
        text = README.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        README.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()

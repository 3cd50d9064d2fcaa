"""The examples run as they stand."""

import re
import subprocess
import sys

from conftest import ROOT

EXAMPLE = ROOT / "examples" / "first_look.py"


def test_the_first_look_draws_samples_and_evaluates_a_published_score(tmp_path):
    words = [sys.executable, "-c", "import runpy, sys; runpy.run_path(sys.argv[1])", str(EXAMPLE)]
    done = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "first_look.png").stat().st_size > 10_000
    path_kl = float(re.search(r"path KL: ([\d.]+) nats", done.stdout)[1])
    learned, exact = map(float, re.search(r"0\.75\]: (\S+) by the learned ODE, (\S+) exactly", done.stdout).groups())
    assert 0 < path_kl < 0.1 and abs(learned - exact) < 1 and "% of them strays" in done.stdout
    assert len(EXAMPLE.read_text().splitlines()) <= 60

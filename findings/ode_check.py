"""`python -m findings.ode_check`: the ODE KL of the sweep `confirm`, as shipped, at ten times the usual points.

In an analysis the ODE KL is judged at 300 points, the same ones for all trainings, so what these few points do to a
difference is in no interval over seeds. Here are other ones, 3,000. The trainings have to be on disk.
"""

import csv
import sys
from pathlib import Path

import torch

from training.side_by_side import usable_processors
from training.train import is_finished
from utils.evaluation import field_metrics as diagnostics
from utils.files import replacing
from utils.runs.loading import ROOT, Run, load_run
from utils.sweeps.plan import plan
from utils.sweeps.results import processes

SWEEP = Path(__file__).parent / "sweeps" / "confirm.yaml"
TABLE = Path(__file__).parent / "ode_check.csv"
POINTS = 3_000
EXPERIMENTS = ("no_regularizer", "fokker_planck_regularizer")


def judge(run: Run) -> tuple[str, int, float, float]:
    """Return experiment, seed, ODE KL in nats and its standard error."""
    torch.set_num_threads(1)
    configuration, network, _ = load_run(run)
    truth = diagnostics.in_float64(configuration.build_truth())
    generator = torch.Generator().manual_seed(20261125)
    network = diagnostics.in_float64(network)
    found = diagnostics.ode_likelihood(network, truth, POINTS, POINTS, generator)["ode_kl"]
    return run.experiment, configuration.seed, found.value, found.standard_error


def main() -> int:
    """Judge the trainings and write their table, once all are there; return the exit status."""
    planned = [planned.run for planned in plan(SWEEP) if planned.run.experiment in EXPERIMENTS]
    runs = [run for run in planned if "max_epochs" not in run.name]
    if missing := [run for run in runs if not is_finished(run)]:
        command = f"python -m training.sweep --config {SWEEP.relative_to(ROOT)}"
        print(
            f"{len(missing)} of the {len(runs)} trainings of the sweep `confirm` are not on disk: {command} makes "
            f"them. {TABLE.name} stays as it is.",
            file=sys.stderr,
        )
        return 2
    with processes(usable_processors()) as pool:
        rows = sorted(pool.map(judge, runs))
    with replacing(TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["experiment", "seed", "ode_kl", "standard_error"])
        writer.writerows((experiment, seed, f"{kl:.6g}", f"{error:.3g}") for experiment, seed, kl, error in rows)
    print(f"{TABLE}: {len(rows)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())

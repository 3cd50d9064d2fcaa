"""Which weights are better, the last or those of the lowest validation loss: python -m findings.study.judged

writes judged.csv from curves.csv of the runs of the sweep `confirm`, with the path KL at 1,024 validation points.
"""

import csv
from pathlib import Path

from utils.runs.curves import read_curves
from utils.runs.loading import read_configuration
from utils.runs.run import find_runs

COLUMNS = ("experiment", "training_seed", "best_epoch", "path_kl_of_best", "path_kl_of_last")

if __name__ == "__main__":
    with Path(__file__).with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run in find_runs("confirm"):
            curves, seed = read_curves(run.curves_file), read_configuration(run.configuration_file).seed
            best, path_kl = curves["score_matching_loss/validation"].argmin(), curves["path_kl_in_nats/validation"]
            writer.writerow([run.experiment, seed, best + 1, f"{path_kl[best]:.4g}", f"{path_kl[-1]:.4g}"])

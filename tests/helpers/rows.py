"""Rows of results.csv whose numbers are known, of runs that nobody trained."""

from pathlib import Path

from analysed import FACTS

from utils.evaluation.estimates import Estimate
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.runs.store import Record, what_was_trained
from utils.sweeps.results import row_of

FOKKER_PLANCK = "fokker_planck_regularizer"


def make_record(experiment, *overrides, run="idea/x", **values):
    """Return the record of a run; a value that is no Estimate has a standard error of 0.1."""
    trained = what_was_trained(Run(experiment, run), configure(experiment, overrides))
    facts = FACTS | {"experiment": experiment, "run": run, "epochs": 4} | trained
    estimates = {name: v if isinstance(v, Estimate) else Estimate(v, 0.1, 10) for name, v in values.items()}
    return Record(facts, estimates, {}, {}, Path("nowhere"))


def path_kl(seed, weight=0.0):
    """Return the path KL of these runs: 1 + seed, less the more the weight is."""
    return 1 + seed - weight / 10 - 0.001 * weight * seed


def make_rows(*weights, seeds=(0, 1, 2), run="idea/x", overrides=()):
    """Return the rows of each weight of the Fokker-Planck penalty, 0 being no regularizer, and of each seed."""
    rows = []
    for weight in weights:
        experiment, named = ("no_regularizer", ()) if not weight else (FOKKER_PLANCK, (f"regularizer.weight={weight}",))
        for seed in seeds:
            words, kl = (*overrides, *named, f"seed={seed}"), path_kl(seed, weight)
            rows.append(row_of(make_record(experiment, *words, run=run, path_kl=kl, radial_p_value=0.5)))
    return rows

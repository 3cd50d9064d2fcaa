"""Files of sweeps, and what makes their runs short."""

import yaml

NO, FP = "no_regularizer", "fokker_planck_regularizer"
SHORT = {
    "max_epochs": 3,
    "data.training_set_size": 512,
    "data.validation_set_size": 128,
    "early_stopping_patience": None,
    "score_viewer.every_n_epochs": 1000000,
    "score_viewer.field_every_n_epochs": 1000000,
}


def grid(path, *parts, name="tried", seeds=(0, 1), **overrides):
    """Write a sweep's file; a part is an experiment and its overrides."""
    parts = [{"experiments": [experiment], "overrides": own} for experiment, own in parts]
    content = {"name": name, "seeds": list(seeds), "parts": parts} | overrides
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path

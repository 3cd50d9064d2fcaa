"""Analyses that cost little (few points, runs that nobody trained, no drawing), runs written by hand, the page read."""

import csv
from html.parser import HTMLParser

import numpy as np
import torch
from matplotlib.text import Text
from PIL import Image
from subjects import FEW

import analyse_experiments
from utils.evaluation import registry
from utils.evaluation.estimates import Estimate
from utils.plots.style import png
from utils.plots.video import write_video
from utils.reports import comparison, experiment, sweep
from utils.runs.checkpoints import Loaded
from utils.runs.curves import HEADING
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.runs.store import Record, facts_of
from utils.score.samplers import Sampling

FRAMES = 31  # of the videos written by hand
WORDS = ("--number-of-samples", "60", "--time-steps", "10")
SAMPLING = Sampling(number_of_samples=60, time_steps=10)
SMALL = ("data.training_set_size=64", "score_network.hidden_size=16", "score_network.number_of_hidden_layers=1")
OF_A_RUN = ("samples_figure", "radial_distribution_figure", "maps_figure", "comparison_figure")
OF_A_RUN = (*(f"plots.figures.{name}" for name in OF_A_RUN), "reports.experiment.magnitude_maps")
OF_SEVERAL = ("comparison_figure", "samples_comparison_figure", "marginal_distribution_figure")
OF_SEVERAL = tuple(f"reports.comparison.{name}" for name in OF_SEVERAL)
FACTS = facts_of(Loaded(Run("no_regularizer"), configure("no_regularizer"), None, None), SAMPLING)


def with_few_points(patch):
    """Let evaluations take few points and videos two frames."""
    patch.setattr("utils.evaluation.registry.Effort", lambda: FEW)
    patch.setattr(experiment, "VIDEO_FRAMES", 2)


def analyse(output, *words):
    """Analyse as the command line says, with few samples; return the exit status."""
    return analyse_experiments.main([*WORDS, "--output-dir", str(output), *words])


def cheaply(patch):
    """Let evaluations take few points, and figures be made but not drawn, and no video; return the texts of each figure
    by its path."""
    with_few_points(patch)
    texts, blank = {}, png(np.zeros((20, 30, 3), np.uint8))

    def save(figure, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blank)
        texts[path] = [text.get_text() for text in figure.findobj(Text)] if figure else []

    for module in (experiment, comparison, sweep):
        patch.setattr(module, "save", save)
    patch.setattr(experiment, "draw_video", lambda *_: None)
    return texts


def without_figures(patch, *names):
    for name in names:
        patch.setattr(f"utils.{name}", lambda *_: None)


def with_few_metrics(patch):
    """Let a few metrics be all, and nothing be made that only pictures need."""
    few = {name: registry.METRICS[name] for name in ("path_kl", "stray_fraction", "radial_p_value")}
    patch.setattr(registry, "METRICS", few)
    without_figures(patch, "reports.experiment.draw_score_error", *OF_SEVERAL)


def leave_run(experiment, name="run1", *overrides, epochs=4):
    """Leave the files of a run that has these epochs of 4 behind it, with the first weights."""
    configuration, run = configure(experiment, [*SMALL, "max_epochs=4", *overrides]), Run(experiment, name)
    configuration.write(run.configuration_file)
    run.best_checkpoint.parent.mkdir()
    state = {f"network.{key}": value for key, value in configuration.build_network().state_dict().items()}
    of_training = {"callbacks": {}, "loops": {}, "optimizer_states": [], "lr_schedulers": []}
    for path in (run.best_checkpoint, run.last_checkpoint):
        torch.save({"state_dict": state, "epochs_done": epochs} | of_training, path)
    rows = [f"{epoch},1.0,1.0,0.5,0.4,,0.001" for epoch in range(epochs)]
    run.curves_file.write_text("\n".join([HEADING, *rows, ""]))
    return run


def write_run(output, experiment, values, folder=None, run="run1", left_out=None, video=False, **facts):
    """Write the folder of a run as the analysis leaves it; a value that is no Estimate has an error of 0.01."""
    estimates = {name: v if isinstance(v, Estimate) else Estimate(v, 0.01, 100) for name, v in values.items()}
    facts, folder = FACTS | {"experiment": experiment, "run": run} | facts, output / (folder or experiment) / run
    record = Record(facts, estimates, left_out or {}, {}, folder)
    record.write({"sampling": 1.0, "video": 2.21})
    Image.new("RGB", (30, 20), "white").save(folder / "samples.png")
    if video:
        shades = np.linspace(0, 255, FRAMES).astype(np.uint8)
        write_video((np.full((32, 64, 3), shade) for shade in shades), folder / "score_field.mp4")
    return record


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """The rows of every table as texts, the tags with their attributes, and all text without its line breaks."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.tables, self.text, self._cell = [], [], "", None
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(" ".join(self._cell.split()))
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data

    def attributes(self, name, *tags):
        """Return an attribute of all tags of these kinds, in their order."""
        return [attributes[name] for tag, attributes in self.tags if tag in tags and name in attributes]

    def row(self, name, table=0):
        """Return the cells of the row whose first cell begins with a name."""
        return next(row for row in self.tables[table] if row[0].startswith(name))

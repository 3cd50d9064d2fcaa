"""The live page: networks with their trained weights, and the exact score, computed in the reader's browser.

One HTML file that loads nothing: docs/live/index.html has the published weights, generated_artifacts/live.html those of
the runs analysed there. As a command, this module publishes weights: `python -m utils.reports.live --help`.
"""

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.evaluation.registry import METRICS
from utils.files import UserError, run_command, write_text
from utils.physics.laws import Law
from utils.reports.comparison import headline
from utils.reports.experiment import folder_of
from utils.reports.formatting import half_width, with_interval
from utils.runs.checkpoints import load_run
from utils.runs.configuration import Problem
from utils.runs.published import configuration_of, packed, published_file, read_published, write_published
from utils.runs.run import ANALYTICAL, ROOT, Run, find_experiments
from utils.runs.store import NUMBERS, Record, mark

TEMPLATE = Path(__file__).parent / "template"
OPTIONS: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
PAGES = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, **OPTIONS)
LIVE = "live.html"  # beside the comparison page


def entry_of(record: Record) -> dict[str, Any]:
    """Return what is published of a run (utils/runs/published.py says what). Raises UserError where its weights are
    missing, or are not those that the record is about."""
    facts = record.facts
    loaded = load_run(run := Run(facts["experiment"], facts["run"]))
    if record.is_control:  # of its own problem
        loaded = loaded._replace(configuration=loaded.configuration.model_copy(update=dict(record.problem)))
    if (loaded.configuration.key(), loaded.epochs) != (facts["key"], facts["epochs"]):
        raise UserError(f"{run.title}: trained with other settings, or on, since it was analysed; analyse it again")
    names = ("experiment", "run", "oracle", "training_seed", "epochs", "code_version", "sampling")
    about = {name: facts[name] for name in names} | {"title": record.title, "problem": record.problem_in_words}
    metrics = {m.name: record.estimates[m.name]._asdict() for m in _shown() if m.name in record.estimates}
    content = about | {"configuration": loaded.configuration.as_dict(), "metrics": metrics}
    content = json.loads(json.dumps(content), parse_constant=lambda text: str(float(text)))  # as Record.write has them
    return content | {"weights": {name: packed(values) for name, values in loaded.network.state_dict().items()}}


def _shown():
    return [*headline(), METRICS["ode_stray_fraction"]]


def write_live(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write the page of these runs. Those whose configurations are no points of a plane are named on it."""
    data = json.dumps(_page_data(entries)).replace("<", "\\u003c")  # no text in it can end the script element
    write_text(path, PAGES.get_template("live.html").render(data=Markup(data)))


def _page_data(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    problems: dict[str, dict[str, Any]] = {}
    shown, left_out = [], []
    for entry in sorted(entries, key=lambda entry: entry["experiment"] == ANALYTICAL):  # the exact scores come last
        configuration = configuration_of(entry)
        key = configuration.problem.model_dump_json()
        if entry["experiment"] == ANALYTICAL:
            if key in problems:
                problems[key]["numbers"] = _numbers(entry["metrics"])
            continue
        if not fits(configuration.problem):
            left_out.append(entry["title"])
            continue
        problems.setdefault(key, _about_problem(configuration.problem, entry["problem"]))
        shown.append(
            {
                "title": entry["title"],
                "mark": mark(configuration.is_oracle, configuration.uses_forces),
                "problem": list(problems).index(key),
                "numbers": _numbers(entry["metrics"]),
                "origin": f"seed {entry['training_seed']}, {entry['epochs']} epochs, evaluated by code version "
                f"{entry['code_version']} on {entry['sampling']['number_of_samples']:,} samples.",
                "score_network": entry["configuration"]["score_network"],
                "weights": entry["weights"],
            }
        )
    return {"problems": [*problems.values()], "entries": shown, "left_out": left_out}


def fits(problem: Problem) -> bool:
    """Return whether configurations are points of a plane, distributed as a mixture of Gaussians."""
    law = type(problem.toy_problem)
    mixture = law.score is Law.score and law.log_terms is Law.log_terms and law.modes is Law.modes
    return mixture and math.prod(problem.toy_problem.shape) == 2


def _about_problem(problem: Problem, name: str) -> dict[str, Any]:
    law = problem.toy_problem
    modes = law.modes(torch.zeros((), dtype=torch.float64)).flatten(1).tolist()
    widths = law.mode_widths(torch.zeros(1, dtype=torch.float64))[0].tolist()
    columns = {"position": modes, "width": widths, "weight": law.mode_weights().tolist()}
    return {
        "name": name or "as in base_config.yaml",
        "shape": law.shape,
        "modes": [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)],
        "mean_width": law.mean_width,
        "stray_radius": law.stray_radius,
        "schedule": problem.noise_schedule.model_dump(mode="json"),
        "numbers": {},  # of the exact score
    }


def _numbers(metrics: dict[str, dict[str, Any]]) -> dict[str, str]:
    estimates = NUMBERS.validate_python(metrics)
    found = [(metric, estimates[metric.name]) for metric in _shown() if metric.name in estimates]
    return {m.heading: with_interval(m.factor * e.value, m.factor * half_width(e)) for m, e in found}


def write_live_of(records: Sequence[Record], output: Path) -> None:
    """Write live.html into an output folder, about the runs whose weights are still those that were analysed; without
    any that can be shown there is none."""
    entries = []
    for record in records:
        with contextlib.suppress(UserError):  # left out: the run was removed or trained again since
            entries.append(entry_of(record))
    path = output / LIVE
    if any(entry["weights"] and fits(configuration_of(entry).problem) for entry in entries):
        write_live(path, entries)
    else:
        path.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Publish as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.reports.live",
        description="Writes the weights that come with the code, docs/live/published.json, from runs that were "
        "analysed, and docs/live/index.html. Without --run-name only the page is written again.",
    )
    add, output = parser.add_argument, ROOT / "generated_artifacts"
    add("--run-name", metavar="NAME", help="the run to publish of each experiment")
    add("--output-dir", type=Path, default=output, metavar="DIR", help="of the analysis")
    options = parser.parse_args(arguments)

    def action() -> int:
        if options.run_name:
            runs = [Run(name, options.run_name) for name in find_experiments()]
            files = [folder_of(run, options.output_dir) / "metrics.json" for run in [*runs, Run(ANALYTICAL)]]
            if not any(file.exists() for file in files[:-1]):
                raise UserError(f"no run {options.run_name!r} was analysed into {options.output_dir}")
            records = [Record.read(file) for file in files if file.exists()]
            write_published(entry_of(record) | {"title": record.facts["experiment"]} for record in records)
        write_live(page := published_file().with_name("index.html"), read_published())
        print(f"Open this: {page}")
        return 0

    return run_command(action, False, "Stopped; every file that was written is whole.")


if __name__ == "__main__":
    sys.exit(main())

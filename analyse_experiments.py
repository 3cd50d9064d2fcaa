"""Draws samples from trained experiments and the exact score; writes pictures, videos, numbers and a page of it all.
`--help` explains. Everything heavy is imported after the command line is understood."""

import signal

if __name__ == "__main__":  # a Ctrl-C in the seconds that the imports take ends this at once, without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
import tempfile
import time
from pathlib import Path

from utils.files import UserError, error_message, run_command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Samples, pictures, a video and numbers for each experiment. Without --experiments: the exact "
        "score (analytical) and every experiment that was trained. What was analysed before into the same folder "
        "stays in the comparison. Exit status 1: some experiment could not be analysed, the others were."
    )
    add = parser.add_argument
    add("--experiments", nargs="+", metavar="NAME", help="folders under training/, or analytical; NAME/RUN names a run")
    add("--run-name", default="run1", help="which run of each experiment (default: run1)")
    add("--sweep", metavar="NAME", help="compare the finished runs of a sweep instead, over seeds")
    add("--results", type=Path, metavar="FILE", help="CSV with a row for each run of a sweep (default: in the output)")
    add("--number-of-samples", type=int, default=10_000, metavar="N", help="default: 10000")
    add("--time-steps", type=int, default=100, metavar="N", help="predictor steps (default: 100)")
    add("--corrector-steps", type=int, default=0, metavar="N", help="Langevin steps after each; default: 0")
    add("--start", choices=("uniform", "exact"), default="uniform", help="distribution at t = 1 (default: uniform)")
    add("--seed", type=int, default=1234, metavar="N", help="of the samples (default: 1234)")
    add("--output-dir", default=str(Path(__file__).parent / "generated_artifacts"), metavar="DIR")
    add("--keep-frames", action="store_true", help="keep the frames of the video as PNG")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Analyse as the command line says; return the exit status."""
    options = parse_arguments(arguments)
    import utils.reports.page  # noqa: F401  (seconds, in which a signal ends this at once)

    def action() -> int:
        for line in (problems := analyse(options)):
            print(line, file=sys.stderr)
        return int(bool(problems))

    stopped = "Stopped; every file that was written is whole. The same command starts again."
    return run_command(action, options.debug, stopped)


def analyse(options: argparse.Namespace) -> list[str]:
    """Analyse every experiment, or the sweep, asked for; return a line on each thing that is left out."""
    from utils.reports.experiment import analyse_run, folder_of
    from utils.reports.page import write_reports
    from utils.reports.sweep import report_sweep
    from utils.runs.loading import configure, validated
    from utils.runs.run import ANALYTICAL, BASE_STUDY, Run, find_experiments
    from utils.score.samplers import Sampling

    words = {name: getattr(options, name) for name in Sampling.model_fields}
    output, sampling = Path(options.output_dir), validated({"command line": words}, Sampling)
    if not options.output_dir:
        raise UserError("--output-dir: should be a folder, given nothing")
    if options.sweep is not None:
        results = options.results or output / "sweeps" / options.sweep / "results.csv"
        return report_sweep(options.sweep, options.experiments, sampling, results, output)
    configure(ANALYTICAL)  # raises where base_config.yaml is wrong: then no run can be analysed
    trained = [e for e in find_experiments() if Run(e, options.run_name).configuration_file.exists()]
    names = options.experiments or [ANALYTICAL, *(trained or BASE_STUDY)]  # untrained, it is told how to train it
    names = [name.partition("/") for name in dict.fromkeys(names)]
    # Run refuses unknown names.
    runs = [Run(name, "run1" if name == ANALYTICAL else run or options.run_name) for name, _, run in names]
    output.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=output).close()  # raises where nothing can be written, before the work begins
    left_out, notes, began = [], [], time.time()
    for run in runs:
        try:
            analyse_run(run, sampling, output, options.keep_frames)
        except Exception as error:  # this one could not be analysed, the others can
            if options.debug:
                raise
            known = isinstance(error, UserError | OSError)
            left_out.append(error_message(error) if known else f"{run.title}: {error!r}")
            file = folder_of(run, output) / "metrics.json"
            if file.exists() and file.stat().st_mtime < began:
                notes.append(f"{run.title}: what this page shows of it is older; it could not be analysed again")
    return [*left_out, *write_reports(output, notes)]


if __name__ == "__main__":
    sys.exit(main())

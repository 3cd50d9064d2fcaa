"""Draws samples from trained experiments and the exact score; writes pictures, videos, numbers and a page of it all.

`python analyse_experiments.py --help` explains. Everything heavy is imported after the command line is understood.
"""

import argparse
import signal
import sys
from pathlib import Path


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""

    def between(least, most):
        def count(text):
            if not least <= (number := int(text)) <= most:
                raise argparse.ArgumentTypeError(f"should be between {least} and {most}, given {text}")
            return number

        return count

    def folder(text):
        existing = next((path for path in (Path(text), *Path(text).absolute().parents) if path.exists()), None)
        if not text or (existing and not existing.is_dir()):
            raise argparse.ArgumentTypeError(f"should be a folder, given {existing if text else 'nothing'}")
        return Path(text)

    parser = argparse.ArgumentParser(
        description="Samples, pictures, a video and numbers for each experiment. Without --experiments: the exact "
        "score (analytical) and every experiment that has a checkpoint. What was analysed before into the same folder "
        "stays in the comparison. Exit status 1: some experiment could not be analysed, the others were."
    )
    add = parser.add_argument
    add("--experiments", nargs="+", metavar="NAME", help="folders under training/, or analytical; NAME/RUN names a run")
    add("--run-name", default="run1", help="which run of each experiment (default: run1)")
    add("--sweep", metavar="NAME", help="compare the finished runs of a sweep instead, over seeds")
    add("--results", type=Path, metavar="FILE", help="CSV with a row for each run of a sweep (default: in the output)")
    add("--number-of-samples", type=between(1, 10**7), default=10_000, metavar="N", help="default: 10000")
    add("--time-steps", type=between(1, 10**6), default=100, metavar="N", help="predictor steps (default: 100)")
    add(
        "--corrector-steps",
        type=between(0, 10**6),
        default=0,
        metavar="N",
        help="Langevin steps after each; default: 0",
    )
    add("--start", choices=("uniform", "exact"), default="uniform", help="distribution at t = 1 (default: uniform)")
    add("--seed", type=between(0, 2**63 - 1), default=1234, metavar="N", help="of the samples (default: 1234)")
    add("--output-dir", type=folder, default=Path(__file__).parent / "generated_artifacts", metavar="DIR")
    add("--keep-frames", action="store_true", help="keep the frames of the video as PNG")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Analyse as the command line says; return the exit status."""
    options = parse_arguments(arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as a Ctrl-C does, and cleans up
    try:
        return analyse_sweep(options) if options.sweep is not None else analyse(options)
    except KeyboardInterrupt:
        print("Stopped; every file that was written is whole. The same command starts again.", file=sys.stderr)
        return 130
    except Exception as error:
        from utils.files import UserError, error_message

        if options.debug or not isinstance(error, UserError | OSError):
            raise
        print(error_message(error), file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def sampling_of(options: argparse.Namespace):
    """Return how the command line wants samples drawn."""
    from utils.score.samplers import Sampling

    return Sampling(**{name: getattr(options, name) for name in Sampling.model_fields})


def analyse(options: argparse.Namespace) -> int:
    """Analyse every experiment asked for; return 1 where one could not be, else 0."""
    from utils.files import UserError, error_message
    from utils.reports.experiment import analyse_run, folder_of
    from utils.reports.page import write_reports
    from utils.runs.run import ANALYTICAL, Run, find_experiments

    names = list(dict.fromkeys(options.experiments or [ANALYTICAL, *find_experiments()]))
    pairs = [(name.partition("/")[0], name.partition("/")[2] or options.run_name) for name in names]
    runs = [Run(name, "run1" if name == ANALYTICAL else run) for name, run in pairs]  # refuses unknown names
    left_out = {}
    for run in runs:
        try:
            analyse_run(run, sampling_of(options), options.output_dir, options.keep_frames)
        except Exception as error:  # this one could not be analysed, the others can
            if options.debug:
                raise
            left_out[run] = (
                error_message(error) if isinstance(error, UserError | OSError) else f"{run.title}: {error!r}"
            )
    earlier = [run for run in left_out if (folder_of(run, options.output_dir) / "metrics.json").exists()]
    notes = [f"{run.title}: what this page shows of it is older; it could not be analysed again" for run in earlier]
    problems = [*left_out.values(), *write_reports(options.output_dir, notes)]
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


def analyse_sweep(options: argparse.Namespace) -> int:
    """Write what the finished runs of a sweep say over seeds; those that were not evaluated yet are."""
    from utils.reports.sweep import report_sweep

    folder = options.output_dir / "sweeps" / options.sweep
    results = options.results or folder / "results.csv"
    problems = report_sweep(options.sweep, options.experiments, sampling_of(options), results, options.output_dir)
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

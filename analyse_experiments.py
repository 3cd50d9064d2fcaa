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
        "score (analytical) and every experiment that has a checkpoint. Exit status 1: some experiment could not be "
        "analysed, the others were."
    )
    parser.add_argument("--experiments", nargs="+", metavar="NAME", help="folders under training/, or analytical")
    parser.add_argument("--run-name", default="run1", help="which run of each experiment (default: run1)")
    parser.add_argument(
        "--sweep", metavar="NAME", help="judge the finished runs of a sweep instead, over seeds; see training/sweep.py"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="CSV that keeps a row a run of a sweep (default: in the output)"
    )
    parser.add_argument(
        "--number-of-samples", type=between(1, 10**7), default=10_000, metavar="N", help="default: 10000"
    )
    parser.add_argument(
        "--time-steps", type=between(1, 10**6), default=100, metavar="N", help="predictor steps (default: 100)"
    )
    parser.add_argument(
        "--corrector-steps",
        type=between(0, 10**6),
        default=0,
        metavar="N",
        help="Langevin steps after each (default: 0)",
    )
    parser.add_argument(
        "--start", choices=("uniform", "exact"), default="uniform", help="law of the start at t = 1 (default: uniform)"
    )
    parser.add_argument(
        "--seed", type=between(0, 2**63 - 1), default=1234, metavar="N", help="of the samples (default: 1234)"
    )
    parser.add_argument(
        "--output-dir", type=folder, default=Path(__file__).parent / "generated_artifacts", metavar="DIR"
    )
    parser.add_argument("--keep-frames", action="store_true", help="keep the frames of the video as PNG")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
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
        from utils.files import sentence
        from utils.plots.video import VideoError
        from utils.runs.loading import UserError

        if options.debug or not isinstance(error, UserError | VideoError | OSError):
            raise
        print(sentence(error), file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def analyse(options: argparse.Namespace) -> int:
    """Analyse every experiment asked for; return 1 where one could not be, else 0."""
    from utils.reports import comparison
    from utils.reports import experiment as analysis
    from utils.reports.page import write_report
    from utils.runs.loading import ANALYTICAL, Run, UserError, find_experiments

    sampling = analysis.Sampling.of(options)
    names = list(dict.fromkeys(options.experiments or [ANALYTICAL, *find_experiments()]))
    runs = [Run(name, "run1" if name == ANALYTICAL else options.run_name) for name in names]  # refuses unknown names
    analysis.draw_marginal_distribution(options.output_dir)
    results, left_out = {}, {}
    for run in runs:
        try:
            results[run] = analysis.analyse_run(run, sampling, options.output_dir, options.keep_frames)
        except UserError as error:
            if options.debug:
                raise
            left_out[run] = str(error)
    left_out_of_curves = comparison.draw_comparison(results, options.output_dir)
    comparison.write_summary(results, options.output_dir)
    earlier = [run for run in left_out if (analysis.folder_of(run, options.output_dir) / "metrics.json").exists()]
    notes = [f"{run.title}: what this page shows of it is older; it could not be analysed again" for run in earlier]
    page, left_out_of_page = write_report(options.output_dir, notes)
    print(f"\nPictures, videos and numbers: {options.output_dir}")
    print(f"Open this first: {page.resolve()}")
    problems = [*left_out.values(), *left_out_of_curves, *left_out_of_page]
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


def analyse_sweep(options: argparse.Namespace) -> int:
    """Judge the finished runs of a sweep that the results do not hold yet; write what all say over seeds."""
    from training.side_by_side import usable_processors
    from training.train import is_finished
    from utils.reports import sweep as sweep_report
    from utils.reports.experiment import Sampling
    from utils.reports.page import write_report
    from utils.runs.loading import UserError, find_runs
    from utils.sweeps import groups as sweep_groups
    from utils.sweeps import results as sweep_results

    folder = options.output_dir / "sweeps" / options.sweep
    results = options.results or folder / "results.csv"
    runs = find_runs(options.sweep, options.experiments)
    finished = [run for run in runs if is_finished(run)]
    failures = []

    def rows_of_sweep():
        return [row for row in sweep_results.read_results(results) if row["sweep"] == options.sweep]

    if not finished and not rows_of_sweep():
        state, verb = f"there is no run of a sweep {options.sweep!r}", "trains one"
        if runs:
            state, verb = f"no run of the sweep {options.sweep!r} has finished ({len(runs)} begun)", "continues them"
        command = f"`python -m training.sweep --config FILE` {verb}"
        raise UserError(f"{state}; {command}, FILE being the YAML file with `name: {options.sweep}`")
    pool = sweep_results.processes(usable_processors())
    try:
        for run, fault in sweep_results.collect(finished, results, Sampling.of(options), pool):
            if fault:
                failures.append(f"{run.experiment}, {run.name}: {fault}")
    finally:
        pool.shutdown(cancel_futures=True)  # after a Ctrl-C too: the rows of finished runs are written already
    if not rows_of_sweep():
        raise UserError("\n".join(failures))
    every_group = sweep_groups.groups(sweep_results.read_results(results))  # another sweep may hold the baseline
    groups = [group for group in every_group if group.sweep == options.sweep]
    groups = sweep_groups.with_baselines(groups, every_group)
    sweep_report.write_sweep(groups, folder, options.sweep)
    print(sweep_report.plain(groups))
    page, left_out_of_page = write_report(options.output_dir)
    print(f"\nEvery number: {folder / 'summary.csv'}; a row a run: {results}\nThe page: {page.resolve()}")
    unfinished = [f"{run.experiment}, {run.name}: not finished, left out" for run in runs if run not in finished]
    problems = failures + unfinished + left_out_of_page
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

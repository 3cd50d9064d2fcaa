"""`python -m findings`: writes FINDINGS.md and its figures from results.csv, and nothing else.

The text is FINDINGS.md.jinja here. Its tables, and every number in a sentence, are computed from the rows.
"""

import argparse
import csv
import math
import sys
from pathlib import Path
from statistics import mean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from findings import ode_check
from utils.files import replacing, sentence
from utils.plots import comparison_figures
from utils.plots import experiment_figures as figures
from utils.reports import sweep as sweep_report
from utils.runs.loading import UserError
from utils.sweeps import results as sweep_results
from utils.sweeps.groups import Group, groups, with_baselines
from utils.sweeps.paired import mean_over_seeds, paired_difference

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
COST = 1.8  # of an epoch with a regularizer, in plain ones: what the baselines of `long` were given
EFFECTS = {  # metric -> heading and factor of the table on what a penalty does to the field
    "score_error_noised": ("score error, noised", 1),
    "score_error_uniform": ("score error, uniform", 1),
    "residual_advective_noised": ("residual, noised", 1),
    "residual_advective_uniform": ("residual, uniform", 1),
    "consistency_excess_noised": ("excess gap, noised, 1e-3", 1e3),
    "consistency_excess_uniform": ("excess gap, uniform", 1),
}
COMPARED = ("shipped", "around", "confirm", "long", "variants")  # sweeps; weights.png shows the other one
REGIMES = {"fresh_noise=false": "frozen noise", "permutation_equivariant=false": "no permutations"}


class Findings:
    """What the template asks for: tables and comparisons of the groups of runs in results.csv."""

    def __init__(self, path: Path):
        self.folder, self.rows = path.parent, sweep_results.read_results(path)
        self.groups = groups(self.rows)

    def of(self, *sweeps: str, **facts: object) -> list[Group]:
        """Return the groups of some sweeps with these attributes, for example regime or experiment."""
        chosen = [group for group in self.groups if group.sweep in sweeps]
        return [group for group in chosen if all(getattr(group, key) == value for key, value in facts.items())]

    def one(self, *sweeps: str, **facts: object) -> Group:
        """Return the one group with these attributes; raises ValueError where there is none, or another."""
        (group,) = self.of(*sweeps, **facts)
        return group

    def regime(self, words: str) -> str:
        """Return the one regime that holds these words."""
        (regime,) = {group.regime for group in self.groups if words in group.regime}
        return regime

    def tables(self, *sweeps: str, **facts: object) -> str:
        """Return a table for each regime of some groups, under its name."""
        chosen, parts = with_baselines(self.of(*sweeps, **facts), self.groups), []
        for regime in sorted({group.regime for group in chosen}, key=lambda regime: (len(regime), regime)):
            lines = [sweep_report.headings(), *(sweep_report.cells(g) for g in chosen if g.regime == regime)]
            title = sweep_report.regime_title(regime)
            parts.append(f"Settings: {f'`{title}`' if regime else title}\n\n{markdown(lines)}")
        return "\n\n".join(parts)

    def effects(self, *sweeps: str, **facts: object) -> str:
        """Return a table of the field's own numbers: the baseline's means, and the differences of the others to it."""
        lines = [["training", *(heading for heading, _ in EFFECTS.values())]]
        for group in with_baselines(self.of(*sweeps, **facts), self.groups):
            texts = [
                sweep_report.difference_text(group.differences[metric], factor)
                if group.differences
                else sweep_report.mean_text(group.means[metric], factor)
                for metric, (_, factor) in EFFECTS.items()
            ]
            lines.append([sweep_report.label(group), *texts])
        return markdown(lines)

    def number(self, metric: str, group: Group) -> str:
        """Return the mean and interval of a metric, shares in percent."""
        return sweep_report.mean_text(group.means[metric], factor(metric))

    def difference(self, metric: str, group: Group, baseline: Group | None = None) -> str:
        """Return the paired difference of a metric to the same training without a regularizer, or to another one."""
        found = group.differences if baseline is None else group.differences_to(baseline)
        return sweep_report.difference_text(found[metric], factor(metric))

    def epochs(self, *sweeps: str, **facts: object) -> str:
        """Return after how many epochs the trainings of the one group with these attributes ended, on average."""
        return f"{mean(int(row['epochs']) for row in self.one(*sweeps, **facts).runs.values()):.0f}"

    def ode_check(self) -> dict[str, str]:
        """Return what ode_check.csv says of the ODE KL: the means of the plain and of the penalised trainings of
        `confirm`, and their paired difference. Raises UserError where it holds other trainings."""
        with (self.folder / "ode_check.csv").open(newline="", encoding="utf-8") as file:
            found = {(row["experiment"], row["seed"]): float(row["ode_kl"]) for row in csv.DictReader(file)}
        seeds = sorted(self.one("confirm", experiment="no_regularizer", regime="").runs)
        plain, penalised = ([found.pop((name, seed), math.nan) for seed in seeds] for name in ode_check.EXPERIMENTS)
        if found or not all(map(math.isfinite, plain + penalised)):
            raise UserError(f"{self.folder / 'ode_check.csv'}: it holds other trainings than the sweep `confirm`")
        return {
            "plain": sweep_report.mean_text(mean_over_seeds(plain)),
            "penalised": sweep_report.mean_text(mean_over_seeds(penalised)),
            "difference": sweep_report.difference_text(paired_difference(penalised, plain)),
        }

    def forest(self) -> figures.Figure:
        """Return the figure of all differences to the baselines, but for those of the sweep `weights`."""
        compared = [group for sweep in COMPARED for group in self.of(sweep) if group.differences]
        sections: dict[str, dict] = {heading(group): {} for group in compared}
        for group in self.of(*COMPARED):  # by experiment and weight, whatever the sweep
            if group.differences:
                differences = [self.percent(metric, group) for metric in sweep_report.PAIRED]
                sections[heading(group)][group.title] = (group.oracle, differences)
        headings = [f"{sweep_report.SHOWN[metric][0].partition(',')[0]}, %" for metric in sweep_report.PAIRED]
        title = "Differences to the same training without a regularizer, in percent; paired by seed, 95 % intervals"
        return comparison_figures.forest_figure(sections, headings, title)

    def percent(self, metric: str, group: Group) -> list[float]:
        """Return a paired difference and its interval in percent of the baseline's mean on the same seeds.

        Not-a-number where that mean is negative, as an estimate of next to nothing may be.
        """
        difference = group.differences[metric]
        baseline = group.means[metric].value - difference.value  # each seed of a group is paired
        scale = 100 / baseline if baseline > 0 else math.nan
        return [scale * number for number in (difference.value, difference.low, difference.high)]

    def failed(self, seeds: int) -> str:
        """Return the trainings of which fewer than so many seeds have a result: the others diverged."""
        few = [(group, max(mean.seeds for mean in group.means.values())) for group in self.groups]
        return "; ".join(f"{group.title}: {n} of {seeds}" for group, n in few if n < seeds) or "none"

    def equal_cost_pairs(self) -> list[tuple[Group, Group]]:
        """Return the trainings with a regularizer, each with the baseline of COST times as many epochs."""
        return [
            (group, longer)
            for group in self.of("weights", "long")
            if group.weight is not None
            for longer in self.of("long", weight=None, epochs=round(COST * group.epochs))
        ]

    def equal_cost(self) -> str:
        """Return their table."""
        names = [sweep_report.SHOWN[metric][0] for metric in sweep_report.PAIRED]
        headings = ["training", "epochs", "baseline's epochs", *(f"difference in {name}" for name in names)]
        lines = [headings]
        for group, longer in self.equal_cost_pairs():
            differences = [self.difference(metric, group, longer) for metric in sweep_report.PAIRED]
            lines.append([sweep_report.label(group), str(group.epochs), str(longer.epochs), *differences])
        return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """Return a table in Markdown; the first line has the headings."""
    first, *others = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [first, ["---"] * len(first), *others])


def factor(metric: str) -> int:
    """Return what a number in a sentence is multiplied by: shares are in percent."""
    return 100 if metric.endswith("fraction") else 1


def heading(group: Group) -> str:
    """Return what a figure calls the way in which a group was trained: all but its regularizer."""
    seeds = sorted(map(int, group.runs))
    words = f"cosine schedule, {group.epochs:,} epochs" if group.regime else "as shipped but for the regularizer"
    words = [words, *(name for key, name in REGIMES.items() if key in group.regime)]
    return ", ".join([*words, f"seeds {seeds[0]} to {seeds[-1]}"])


def main() -> int:
    """Write FINDINGS.md and its figures; return the exit status."""
    try:
        write(Findings(RESULTS))
    except (UserError, OSError) as error:
        print(sentence(error), file=sys.stderr)
        return 2
    return 0


def write(findings: Findings) -> None:
    """Write figures and page, nothing of which changes where a number is missing."""
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    text = environment.get_template("FINDINGS.md.jinja").render(
        findings=findings, runs=len(findings.rows), cost=COST, ode_check=findings.ode_check()
    )
    for name, picture in sweep_report.weights_figures(findings.of("weights"), "weights").items():
        figures.save(picture, HERE / f"{name}.png")
    figures.save(findings.forest(), HERE / "differences.png")
    with replacing(HERE / "FINDINGS.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{HERE / 'FINDINGS.md'}: {len(findings.rows)} runs")


if __name__ == "__main__":
    description = "Writes FINDINGS.md and its figures from results.csv, and nothing else."
    argparse.ArgumentParser(prog="python -m findings", description=description).parse_args()
    sys.exit(main())

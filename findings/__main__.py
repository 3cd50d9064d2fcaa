"""`python -m findings`: writes FINDINGS.md and its figures from results.csv, and nothing else.

The text is FINDINGS.md.jinja here. Its tables, and every number in a sentence, are computed from the rows.
"""

import csv
import math
import sys
from pathlib import Path
from statistics import mean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils import comparison_figures, figures, sweep_report, sweep_results
from utils.experiments import UserError
from utils.files import replacing
from utils.statistics import paired_difference
from utils.sweep_groups import Group, groups

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
COST = 1.8  # of an epoch with the Fokker-Planck penalty or with consistency, in plain ones; see benchmarks/README.md
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
        chosen, parts = self.of(*sweeps, **facts), []
        for regime in sorted({group.regime for group in chosen}, key=lambda regime: (len(regime), regime)):
            table = sweep_report.markdown([group for group in chosen if group.regime == regime])
            parts.append(f"`{sweep_report.regime_title(regime)}`\n\n{table}")
        return "\n\n".join(parts)

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

    def ode_check(self) -> str:
        """Return the paired difference of the ODE KL in ode_check.csv, the penalised trainings' to the plain ones'."""
        with (self.folder / "ode_check.csv").open(newline="", encoding="utf-8") as file:
            rows = [(row["experiment"], int(row["seed"]), float(row["ode_kl"])) for row in csv.DictReader(file)]
        plain, penalised = (
            {seed: kl for experiment, seed, kl in rows if experiment == name}
            for name in ("no_regularizer", "fokker_planck_regularizer")
        )
        difference = paired_difference([penalised[seed] for seed in plain], list(plain.values()))
        return sweep_report.difference_text(difference)

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
            for group in self.of("weights", "long", oracle=False)
            if group.weight is not None
            for longer in self.of("long", weight=None, epochs=round(COST * group.epochs))
        ]

    def equal_cost(self) -> str:
        """Return their table."""
        names = [sweep_report.SHOWN[metric][0] for metric in sweep_report.PAIRED]
        headings = ["training", "epochs", "baseline's epochs", *(f"difference in {name}" for name in names)]
        lines = [headings, ["---"] * len(headings)]
        for group, longer in self.equal_cost_pairs():
            differences = [self.difference(metric, group, longer) for metric in sweep_report.PAIRED]
            lines.append([group.title, str(group.epochs), str(longer.epochs), *differences])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def factor(metric: str) -> int:
    """Return what a number in a sentence is multiplied by: shares are in percent."""
    return 100 if metric.endswith("fraction") else 1


def heading(group: Group) -> str:
    """Return what a figure calls the way in which a group was trained: all but its regularizer."""
    seeds = sorted(map(int, group.runs))
    words = f"cosine schedule, {group.epochs:,} epochs" if group.regime else "as shipped"
    words = [words, *(name for key, name in REGIMES.items() if key in group.regime)]
    return ", ".join([*words, f"seeds {seeds[0]} to {seeds[-1]}"])


def main() -> None:
    """Write FINDINGS.md and its figures."""
    try:
        findings = Findings(RESULTS)
    except UserError as error:
        sys.exit(str(error))
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    for name, picture in sweep_report.weights_figures(findings.of("weights"), "weights").items():
        figures.save(picture, HERE / f"{name}.png")
    figures.save(findings.forest(), HERE / "differences.png")
    text = environment.get_template("FINDINGS.md.jinja").render(findings=findings, runs=len(findings.rows), cost=COST)
    with replacing(HERE / "FINDINGS.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{HERE / 'FINDINGS.md'}: {len(findings.rows)} runs")


if __name__ == "__main__":
    main()

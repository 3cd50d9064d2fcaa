"""`python -m findings`: writes FINDINGS.md and its figures from results.csv, and nothing else.

The text is FINDINGS.md.jinja here. Its tables, and every number in a sentence, are computed from the rows.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils import comparison_figures, figures, sweep_report, sweep_results
from utils.files import replacing

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
COST = 1.8  # of an epoch with the Fokker-Planck penalty or with consistency, in plain ones; see benchmarks/README.md
SECTIONS = {  # sweep -> what a figure calls it
    "shipped": "as shipped, seeds 0 to 4",
    "confirm": "as shipped, seeds 5 to 24",
    "around": "as shipped, other weights",
    "long": "cosine schedule, 1,000 epochs",
    "variants": "cosine schedule, 200 epochs",
}
REGIMES = {"fresh_noise=false": "frozen noise", "permutation_equivariant=false": "no permutations"}


class Findings:
    """What the template asks for: tables and comparisons of the groups of runs in results.csv."""

    def __init__(self, path: Path):
        self.rows = sweep_results.read_results(path)
        self.groups = sweep_results.groups(self.rows)

    def of(self, *sweeps: str, **facts: object) -> list[sweep_results.Group]:
        """Return the groups of some sweeps with these attributes, for example regime or experiment."""
        chosen = [group for group in self.groups if group.sweep in sweeps]
        return [group for group in chosen if all(getattr(group, key) == value for key, value in facts.items())]

    def one(self, *sweeps: str, **facts: object) -> sweep_results.Group:
        """Return the one group with these attributes; raises ValueError where there is none, or another."""
        (group,) = self.of(*sweeps, **facts)
        return group

    def tables(self, *sweeps: str) -> str:
        """Return a table for each regime of some sweeps, under its name."""
        parts = []
        for regime in sorted({group.regime for group in self.of(*sweeps)}, key=lambda regime: (len(regime), regime)):
            found = self.of(*sweeps, regime=regime)
            parts.append(f"`{sweep_report.regime_title(regime)}`\n\n{sweep_report.markdown(found)}")
        return "\n\n".join(parts)

    def number(self, metric: str, group: sweep_results.Group) -> str:
        """Return the mean and interval of a metric."""
        return sweep_report.mean_text(group.means[metric], sweep_report.SHOWN[metric][1])

    def difference(self, metric: str, group: sweep_results.Group, baseline: sweep_results.Group | None = None) -> str:
        """Return the paired difference of a metric to the same training without a regularizer, or to another one."""
        found = group.differences if baseline is None else group.differences_to(baseline)
        return sweep_report.difference_text(found[metric], sweep_report.SHOWN[metric][1])

    def significant(self, metric: str, sign: int, *sweeps: str, **facts: object) -> str:
        """Return the trainings whose paired difference in a metric is significant and of this sign, with its number."""
        found = []
        for group in self.of(*sweeps, **facts):
            difference = group.differences.get(metric)
            if difference is not None and difference.is_significant and difference.value * sign > 0:
                found.append(f"{group.title} ({self.difference(metric, group).removesuffix(' *')})")
        return "; ".join(found) or "none"

    def forest(self) -> figures.Figure:
        """Return the figure of all differences to the baselines, but for those of the sweep over weights."""
        sections: dict[str, dict] = {}
        for sweep, heading in SECTIONS.items():
            for group in self.of(sweep):
                if group.differences:
                    words = [heading, *(words for key, words in REGIMES.items() if key in group.regime)]
                    differences = [self.percent(metric, group) for metric in sweep_report.PAIRED]
                    sections.setdefault(", ".join(words), {})[group.title] = (group.oracle, differences)
        headings = [f"difference in {name}, % of the baseline's" for name in ("path KL", "stray samples")]
        title = "Difference to the same training without a regularizer, paired by seed, with 95 % intervals"
        return comparison_figures.forest_figure(sections, headings, title)

    def percent(self, metric: str, group: sweep_results.Group) -> list[float]:
        """Return a paired difference and its interval in percent of the baseline's mean on the same seeds."""
        difference = group.differences[metric]
        baseline = group.means[metric].value - difference.value  # each seed of a group is paired
        return [100 * number / baseline for number in (difference.value, difference.low, difference.high)]

    def failed(self, seeds: int) -> str:
        """Return the trainings of which fewer than so many seeds have a result: the others diverged."""
        few = [(group, max(mean.seeds for mean in group.means.values())) for group in self.groups]
        return "; ".join(f"{group.title}: {n} of {seeds}" for group, n in few if n < seeds) or "none"

    def equal_cost(self) -> str:
        """Return a table of the trainings with a regularizer, each beside the baseline of COST times as many epochs."""
        metrics = ("path_kl", "stray_fraction")
        headings = ["training", "epochs", "baseline's epochs"]
        headings += [text for metric in metrics for text in (sweep_report.SHOWN[metric][0], "baseline", "difference")]
        lines = [headings, ["---"] * len(headings)]
        for group in self.of("weights", "long", oracle=False):
            more = group.regime.replace(f"max_epochs={group.epochs}", f"max_epochs={round(COST * group.epochs)}")
            for longer in self.of("long", regime=more, weight=None) if group.weight is not None else ():
                line = [group.title, str(group.epochs), str(longer.epochs)]
                for metric in metrics:
                    numbers = [self.number(metric, of) for of in (group, longer)]
                    line += [*numbers, self.difference(metric, group, longer)]
                lines.append(line)
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write FINDINGS.md and a figure for each sweep over weights."""
    findings = Findings(RESULTS)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    for sweep in dict.fromkeys(group.sweep for group in findings.groups):
        for name, picture in sweep_report.weights_figures(findings.of(sweep), sweep).items():
            figures.save(picture, HERE / f"{name}.png")
    figures.save(findings.forest(), HERE / "differences.png")
    text = environment.get_template("FINDINGS.md.jinja").render(findings=findings, runs=len(findings.rows))
    with replacing(HERE / "FINDINGS.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{HERE / 'FINDINGS.md'}: {len(findings.rows)} runs")


if __name__ == "__main__":
    main()

"""`python -m findings`: writes FINDINGS.md and its figures from results.csv, and nothing else.

The text is FINDINGS.md.jinja here. Its tables, and every number in a sentence, are computed from the rows.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils import figures, sweep_report, sweep_results
from utils.files import replacing

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"


class Findings:
    """What the template asks for: tables and comparisons of the groups of runs in results.csv."""

    def __init__(self, path: Path):
        self.rows = sweep_results.read_results(path)
        self.groups = sweep_results.groups(self.rows)

    def of(self, sweep: str, **facts: object) -> list[sweep_results.Group]:
        """Return the groups of a sweep with these attributes, for example regime or experiment."""
        chosen = [group for group in self.groups if group.sweep == sweep]
        return [group for group in chosen if all(getattr(group, key) == value for key, value in facts.items())]

    def tables(self, sweep: str) -> str:
        """Return a table for each regime of a sweep, under its name."""
        parts = []
        for regime in dict.fromkeys(group.regime for group in self.of(sweep)):
            parts.append(
                f"`{regime or 'the shipped settings'}`\n\n{sweep_report.markdown(self.of(sweep, regime=regime))}"
            )
        return "\n\n".join(parts)

    def significant(self, sweep: str, metric: str, sign: int, oracle: bool = False) -> str:
        """Return the trainings whose paired difference in a metric is significant and of this sign, with its number."""
        factor = sweep_report.SHOWN[metric][1]
        found = []
        for group in self.of(sweep, oracle=oracle):
            difference = group.differences.get(metric)
            if difference is not None and difference.is_significant and difference.value * sign > 0:
                text = sweep_report.difference_text(difference, factor).removesuffix(" *")
                found.append(f"{group.title} ({text})")
        return "; ".join(found) or "none"

    def number(self, sweep: str, metric: str, **facts: object) -> str:
        """Return the mean and interval of a metric of the one group with these attributes."""
        (group,) = self.of(sweep, **facts)
        return sweep_report.mean_text(group.means[metric], sweep_report.SHOWN[metric][1])

    def failed(self, sweep: str, seeds: int) -> str:
        """Return the trainings of which fewer than so many seeds have a result: the others diverged."""
        few = [(group, max(mean.seeds for mean in group.means.values())) for group in self.of(sweep)]
        return "; ".join(f"{group.title}: {n} of {seeds}" for group, n in few if n < seeds) or "none"


def main() -> None:
    """Write FINDINGS.md and a figure for each sweep over weights."""
    findings = Findings(RESULTS)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    for sweep in dict.fromkeys(group.sweep for group in findings.groups):
        for name, picture in sweep_report.weights_figures(findings.of(sweep), sweep).items():
            figures.save(picture, HERE / f"{name}.png")
    text = environment.get_template("FINDINGS.md.jinja").render(findings=findings, runs=len(findings.rows))
    with replacing(HERE / "FINDINGS.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{HERE / 'FINDINGS.md'}: {len(findings.rows)} runs")


if __name__ == "__main__":
    main()

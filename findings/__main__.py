"""Writes the tables and figures of the study from its rows: python -m findings"""

from findings.figures import shipped_figure, truths_figure
from findings.tables import FOLDER, TABLES, written
from utils.plots.style import save

for name, rows in TABLES.items():
    path = FOLDER / "tables" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(written(rows()), encoding="utf-8")
save(shipped_figure(), FOLDER / "ratios.png")
save(truths_figure(), FOLDER / "truths.png")

"""What the pages say of the study is in its rows."""

import re

import pytest
from conftest import ROOT

from findings.tables import FOLDER, TABLES, TRUTHS, written

NAMES = "README.md", "findings/FINDINGS.md", "findings/TRUTHS.md"
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}


@pytest.mark.parametrize("name", TABLES)
def test_table_is_that_of_the_rows(name):
    assert (FOLDER / "tables" / f"{name}.md").read_text(encoding="utf-8") == written(TABLES[name]())


@pytest.mark.parametrize("page", PAGES)
def test_every_interval_on_a_page_stands_in_a_table(page):
    tables = "".join(path.read_text(encoding="utf-8") for path in (FOLDER / "tables").rglob("*.md"))
    shown = [f"truths/{name}" for name in list(TRUTHS)[1:]] if "TRUTHS" in page else ["shipped"]
    assert all(written(TABLES[name]()) in PAGES[page] for name in shown)
    intervals = re.findall(r"[\d.]+ ± [\d.]*\d|[\d.]+ \([\d.]+ to [\d.]+\)", PAGES[page].replace("\n", " "))
    example = "0.0066 ± 0.0005"  # how to read one
    assert len(intervals) > 10 and [text for text in intervals if text not in tables + example] == []

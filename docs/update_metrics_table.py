"""Write the table of metrics into README.md and docs/metrics.rst from the registry.

python docs/update_metrics_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from sktransfer.metrics._registry import METRICS

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"


def table_rows() -> list[list[str]]:
    """Return the header and the cells of each metric."""
    rows = [["metric", "reads", "tasks", "cost", "weakness", "reference"]]
    for metric in METRICS.values():
        reads = metric.reads.replace("_proba", " probabilities")
        tasks = ", ".join(metric.tasks)
        about = [metric.cost, metric.weakness, metric.reference]
        rows.append([f"`{metric.name}`", reads, tasks, *about])
    return rows


def readme_with_table(text: str) -> str:
    """Replace the table between the markers of the README."""
    header, *rows = [f"| {' | '.join(cells)} |" for cells in table_rows()]
    lines = [BEGIN, "", header, "|" + " --- |" * len(table_rows()[0]), *rows, "", END]
    return re.sub(f"{BEGIN}.*?{END}", lambda _: "\n".join(lines), text, flags=re.DOTALL)


def rst_table() -> str:
    """Return the same table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in table_rows():
        cells = [cell.replace("`", "``") for cell in row]
        lines += [f"   {'*' if i == 0 else ' '} - {c}" for i, c in enumerate(cells)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(readme_with_table(readme.read_text("utf-8")), "utf-8")
    (ROOT / "docs" / "metrics_table.rst.inc").write_text(rst_table(), "utf-8")

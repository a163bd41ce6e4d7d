"""Write the table of metrics into README.md and docs/metrics.rst from the registry.

python docs/update_metrics_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from sktransfer.metrics import metrics_table

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"


def readme_with_table(text: str) -> str:
    """The README with the table between its two marks as it is now."""
    table = f"{BEGIN}\n\n{metrics_table()}\n\n{END}"
    return re.sub(f"{BEGIN}.*?{END}", lambda _: table, text, flags=re.DOTALL)


def rst_table() -> str:
    """The same table in reStructuredText."""
    header, _, *rows = metrics_table().splitlines()
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        cells = [cell.strip().replace("`", "``") for cell in row.strip("|").split("|")]
        lines += [f"   {'*' if i == 0 else ' '} - {c}" for i, c in enumerate(cells)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(readme_with_table(readme.read_text("utf-8")), "utf-8")
    (ROOT / "docs" / "metrics_table.rst.inc").write_text(rst_table(), "utf-8")

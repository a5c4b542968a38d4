"""Files of int8_quality.py side by side, in Markdown: a row for each tool, a column for each network.

    python benchmarks/int8_table.py lite0.json small.json

Cells: agreement with fp32 % / SQNR dB / MB / processor time over ONNX fp32, and its half interval of 95 %.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BOLD = "softedge"


def rows_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["tool"]: row for part in found.values() if "rows" in part for row in part["rows"]}


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    parts = [f"{100 * row['agreement']:.1f}", f"{row['sqnr_db']:.1f}", f"{row['size_bytes'] / 1e6:.2f}"]
    if "time_over_fp32" in row:
        parts.append(f"{row['time_over_fp32']:.2f} ± {(row['high'] - row['low']) / 2:.2f}")
    return " / ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    tables = [json.loads(path.read_text()) for path in parser.parse_args().files]
    rows = [rows_of(found) for found in tables]
    names = list(dict.fromkeys(name for network in rows for name in network))
    heads = [f"{found['about']['backbone']}, {found['about']['size']} px" for found in tables]
    print("|".join(["", " file ", *(f" {head} " for head in heads), ""]))
    print("|---" * (len(heads) + 1) + "|")
    for name in names:
        title = f"**{name}**" if name.startswith(BOLD) else name
        print("|".join(["", f" {title} ", *(f" {cell(network.get(name))} " for network in rows), ""]))


if __name__ == "__main__":
    main()

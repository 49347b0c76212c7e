"""Measure; each figure is a ratio taken in this one run, the median of several.

python scripts/benchmark.py steps      # training one run, beside a bare loop, the usual Lightning, skorch, scikit-learn
python scripts/benchmark.py sweep      # learning rates trained as one network, beside one run and others' ways
python scripts/benchmark.py tables     # reading, encoding and predicting 1,000,000 rows of 28 numbers
python scripts/benchmark.py scaling    # time and memory of training, by the number of rows
python scripts/benchmark.py start      # how soon commands answer, and what they import
python scripts/benchmark.py accuracy FOLDER  # how well runs predict, beside boosting and others, on a folder's tables
"""

import argparse
import importlib
import inspect
import json
import sys
from typing import Any


def shown(table: list[dict[str, Any]]) -> str:
    """The table in Markdown, numbers with three digits."""
    lines = ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
    for row in table:
        cells = [(f"{v:.3g}" if v < 1000 else f"{v:,.0f}") if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=["steps", "sweep", "tables", "scaling", "start", "accuracy"], nargs="?", default="steps"
    )
    parser.add_argument("--rows", type=int, nargs="+", help="other numbers of rows than the figures in the README")
    parser.add_argument("--repeats", type=int, help="of which the median is taken")
    parser.add_argument("--epochs", type=int, help="of each run")
    parser.add_argument("--nets", nargs="+", help="of SEED, MID and BIG")
    parser.add_argument("--without", nargs="+", help="ways that are left out, such as joblib in a sweep")
    parser.add_argument("folder", nargs="?", help="of accuracy: CSV files with a column target (default: OpenML's)")
    parser.add_argument("--splits", type=int, help="of accuracy, of each table (5)")
    parser.add_argument("--threads", type=int, help="of accuracy, of each way (1)")
    parser.add_argument("--jobs", type=int, help="of accuracy: how many at a time (1)")
    parser.add_argument("--only", nargs="+", help="of accuracy: ways, beside the reference")
    parser.add_argument(
        "--added", nargs="+", help="of accuracy: more runs of ours, such as 'experiment=strong model.dropout=0.2'"
    )
    parser.add_argument("--reference", help="of accuracy: what the others are divided by (CatBoost)")
    parser.add_argument("--results", help="of accuracy: a file of what was measured, to go on from (accuracy.jsonl)")
    parser.add_argument("--json", action="store_true", help="for machines")
    words = parser.parse_args()
    options = {key: value for key, value in vars(words).items() if value and key not in ("what", "json")}
    table = importlib.import_module(f"benchmark_{words.what}").table
    known = inspect.signature(table).parameters
    if unknown := [key for key in options if key not in known]:
        sys.exit(f"error: {words.what} has no option {', '.join(unknown)}: it has {', '.join(known)}")
    found = table(**options)
    print(json.dumps(found) if words.json else shown(found))


if __name__ == "__main__":
    main()

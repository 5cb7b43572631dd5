"""Write the results table of the README from summaries of `textray evaluate`; no hand types a score.

python docs/write_results.py scores/summary.json [...]
"""

import argparse
import json
from pathlib import Path

from textray.evaluate.page import results_table

START, END = "<!-- results -->", "<!-- /results -->"


def fill(page: str, table: str) -> str:
    """Put a table between the markers of a page."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"the page has no {START} ... {END}")
    return f"{before}{START}\n{table}{END}{after}"


def main() -> None:
    """Parse the arguments and change the README beside this folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summaries", type=Path, nargs="+")
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in parser.parse_args().summaries]
    readme = Path(__file__).parent.parent / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), results_table(summaries)), encoding="utf-8")


if __name__ == "__main__":
    main()

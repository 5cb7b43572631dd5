"""Write docs/faults.md, the table of bad inputs and their answers, from the cases of tests/faults.

Run: python docs/write_faults.py
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults

What TextRay does with bad, odd and hostile inputs of `textray segment`. Each row is a test; `pytest tests/faults` runs
them all. `python docs/write_faults.py` writes this page from them.

"read" is exit code 0 with a mask, "refused" is exit code 3, a reason and no mask, "usage" is exit code 2. The other
files of a run are read in each case. Codes are in the message and in `run.json`. "Others" lists the tests of runs, data
sets and single readers.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page: a table for each letter."""
    parts = [HEAD]
    for path in sorted((ROOT / "tests" / "faults").glob("test_[a-f].py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rows = [f"| {name} | {odd} | {answer_of(answer)} |" for name, odd, _, answer in module.CASES]
        title = (module.__doc__ or "").rstrip(".\n")
        parts.append("\n".join([f"## {title}", "", "| id | input | answer |", "| --- | --- | --- |", *rows, ""]))
    parts.append("\n".join(["## Others", "", "| id | what holds | test |", "| --- | --- | --- |", *others(), ""]))
    return "\n".join(parts)


def others() -> list[str]:
    """Rows of tests anywhere whose names begin with an id of the catalogue."""
    found = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, words in re.findall(r"^def test_([a-e]\d\d?)_(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.add(
                (f"{name[0].upper()}{int(name[1:]):02}", words.replace("_", " "), path.relative_to(ROOT).as_posix())
            )
    return [f"| {name} | {words} | `{path}` |" for name, words, path in sorted(found)]


def answer_of(answer: dict[str, Any]) -> str:
    """The answer of a case in words."""
    words = [{0: "read", 2: "usage", 3: "refused"}[answer.get("exit", 0)]]
    words += ["the mask of the clean film"] if "same_as" in answer else []
    return ", ".join([*words, *(f"`{code}`" for code in answer.get("codes", ()))])


if __name__ == "__main__":
    main()

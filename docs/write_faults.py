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

What TextRay does with bad, odd and hostile inputs. Each row is a test; `pytest tests/faults` runs them all.
`python docs/write_faults.py` writes this page from them.

A, B, C and E are tried with `textray segment`: "read" is exit code 0 with a mask, "refused" is exit code 3, a reason
and no mask, "usage" is exit code 2. The other files of a run are read in each case. D is tried with
`textray data check` and `textray evaluate`, and what they refuse with `textray train` too. Codes are in the message
and in `run.json`. "Others" lists further tests, those of runs and trainings among them; some are slow
(`pytest -m slow`).
"""
CASES_OF = {"A": 30, "B": 17, "C": 13, "D": 14, "E": 18, "F": 24}
"""Letters of the catalogue, each with its number of cases; letters and numbers beyond are tables of ours."""
LATER = {
    "A15": "marks that are burned into the film are told from lesions; needs the lungs",
    "A25": "films that share a SOP Instance UID are named; both are read today, with a record each",
    "A26": "a DICOMDIR is followed; it is refused as no film today",
    "B09": "pictures of fractions (TIFF); arrays in Python with NaN are refused today",
    "B12": "photos of films are told from films; needs the lungs",
    "C06": "the text is compared with the picture",
    "D08": "images that are nearly the same in two parts of a data set",
    "F16": "PACS node: associations that are refused",
    "F17": "PACS node: names and UIDs with path characters",
    "F18": "PACS node: objects that are cut off",
    "F19": "PACS node: an archive that is down",
    "F20": "PACS node: results that come back; as files they are skipped today (A04)",
    "F21": "DICOMweb: errors of the other side",
    "F22": "an archive that restarts",
    "F23": "two nodes with one study",
}
"""Cases of the catalogue that are later work."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page: a table for each letter."""
    parts = [HEAD]
    for letter, (title, cases) in tables().items():
        twin = "the scores of the clean copy" if letter == "D" else "the mask of the clean film"
        rows = [f"| {name} | {odd} | {answer_of(answer, twin)} |" for name, odd, _, answer in cases]
        parts.append("\n".join([f"## {title}", "", "| id | input | answer |", "| --- | --- | --- |", *rows, ""]))
    found = [f"| {name} | {words} | `{path}` |" for name, words, path in others()]
    parts.append("\n".join(["## Others", "", "| id | what holds | test |", "| --- | --- | --- |", *found, ""]))
    later = [f"| {name} | {what} |" for name, what in LATER.items()]
    parts.append("\n".join(["## Later work", "", "| id | what is not there yet |", "| --- | --- |", *later, ""]))
    return "\n".join(parts)


def tables() -> dict[str, tuple[str, list[Any]]]:
    """Title and cases of each letter that has a table."""
    found = {}
    for path in sorted((ROOT / "tests" / "faults").glob("test_[a-f].py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[path.stem[-1].upper()] = ((module.__doc__ or "").rstrip(".\n"), module.CASES)
    return found


def others() -> list[tuple[str, str, str]]:
    """Id, words and file of the tests anywhere whose names begin with an id of the catalogue."""
    found = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, words in re.findall(r"^def test_([a-f]\d\d)_(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found.add((name.upper(), words.replace("_", " "), path.relative_to(ROOT).as_posix()))
    return sorted(found)


def untested() -> set[str]:
    """Ids of the catalogue that have neither a test nor a place in `LATER`."""
    tested = {case[0][:3] for _, cases in tables().values() for case in cases} | {name for name, _, _ in others()}
    every = {f"{letter}{number:02}" for letter, count in CASES_OF.items() for number in range(1, count + 1)}
    return {name for name in every - tested if not {name, name[0]} & LATER.keys()}


def answer_of(answer: dict[str, Any], twin: str) -> str:
    """The answer of a case in words; ``twin`` is what it has in common with that of the clean input."""
    words = [{0: "read", 2: "usage", 3: "refused"}[answer.get("exit", 0)]]
    words += [twin] if "same_as" in answer else []
    return ", ".join([*words, *(f"`{code}`" for code in answer.get("codes", ()))])


if __name__ == "__main__":
    main()

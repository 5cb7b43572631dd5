"""The page of faults is what the cases say, and says of each case of the catalogue what becomes of it."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_cases():
    spec = importlib.util.spec_from_file_location("write_faults", ROOT / "docs" / "write_faults.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.untested() == set()
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run: python docs/write_faults.py"

"""Tables that are kept with the scores of each image say what these say."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from textray.metrics.segmentation import case_columns, dice_per_image, dice_pooled, iou_per_image, iou_pooled

RESULTS = Path(__file__).parents[2] / "docs" / "results"
STATISTICS = {
    "dice_pooled": dice_pooled,
    "iou_pooled": iou_pooled,
    "dice_per_image": dice_per_image,
    "iou_per_image": iou_per_image,
}
ARCHIVES = sorted(RESULTS.glob("*-rows.tar.gz"))


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def rows(request):
    """Folder of a row → its files' contents by their names."""
    found = {}
    with tarfile.open(request.param) as archive:
        for member in archive:
            if member.isfile():
                folder, _, name = member.name.removeprefix("rows/").partition("/")
                found.setdefault(folder, {})[name] = archive.extractfile(member).read()
    return found


def test_there_are_some():
    assert ARCHIVES


def test_scores_are_those_of_the_cases(rows):
    for folder, files in rows.items():
        result = json.loads(files["result.json"])
        cases = [
            [int(case[name]) for name in ("tp", "fp", "fn", "tn")]
            for case in csv.DictReader(io.StringIO(files["scores/cases.csv"].decode()))
            if case["mode"] == result["text_mode"]
        ]
        assert len(cases) == result["images"][result["split"]], folder
        sums = case_columns(np.array(cases, np.int64)).sum(axis=0)
        for name, statistic in STATISTICS.items():
            assert float(statistic(sums)) == pytest.approx(result["scores"][name]["value"], abs=1e-9), (folder, name)


def test_every_row_stands_in_a_table_and_every_table_rests_on_rows(rows, request):
    kept = {json.loads(files["result.json"])["settings"]: json.loads(files["result.json"]) for files in rows.values()}
    seen, paper = set(), request.node.callspec.params["rows"].name.removesuffix("-rows.tar.gz")
    for path in RESULTS.glob(f"{paper}-*/table.csv"):
        for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            if line["state"] == "done":
                result = kept[line["settings"]]
                for name in STATISTICS:
                    assert float(line[name]) == pytest.approx(result["scores"][name]["value"], abs=1e-9)
                seen.add(line["settings"])
    assert seen == set(kept)

"""Tables that are kept: what their rows hold says the same, and today's code writes them again to the byte.

Of LViT's tables each row is kept, so the command is run on them. Of the others only the tables are kept: from the
numbers of ``table.csv`` and the few facts that stand in ``table.md`` alone all is written again but the answers to
questions, which need the score of each image.
"""

import csv
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
from textray.metrics.segmentation import SCORES, case_columns
from textray.reproduce import Order, page, plan, runner
from textray.reproduce.page import ACCURACY, MAP_SCORES, MASK_SCORES
from textray.reproduce.plan import JobResult, Source, State
from textray.reproduce.tables import Table, read_tables

RESULTS = Path(__file__).parents[2] / "docs" / "results"
WITH_ROWS = {"lvit-qata": "qata_cov19", "lvit-monuseg": "monuseg", "lvit-ablation": "qata_cov19"}
WITHOUT_ROWS = ("mmi-unet-table2", "mmi-unet-table3", "sgseg-table1", "sgseg-table2", "grounding-qata")


@pytest.fixture(autouse=True)
def version(monkeypatch):
    for module in (plan, page):
        monkeypatch.setattr(module, "__version__", "0.1.0")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folder that the rows of LViT's tables are unpacked in."""
    folder = tmp_path_factory.mktemp("kept")
    with tarfile.open(RESULTS / "lvit-rows.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def committed(name):
    folder = RESULTS / f"{name}-small"
    return (folder / "table.md").read_text(encoding="utf-8"), (folder / "table.csv").read_bytes().decode()


def test_every_table_that_is_kept_is_looked_at():
    assert {path.name for path in RESULTS.glob("*-small")} == {f"{name}-small" for name in (*WITH_ROWS, *WITHOUT_ROWS)}


def test_scores_are_those_of_the_cases_and_every_row_stands_in_a_table(kept):
    settings = set()
    for home in (kept / "rows").iterdir():
        result = json.loads((home / "result.json").read_text())
        settings.add(result["settings"])
        with (home / "scores/cases.csv").open(encoding="utf-8", newline="") as file:
            cases = [case for case in csv.DictReader(file) if case["mode"] == result["text_mode"]]
        assert len(cases) == result["images"][result["split"]], home
        counts = np.array([[int(case[name]) for name in ("tp", "fp", "fn", "tn")] for case in cases], np.int64)
        sums = case_columns(counts).sum(axis=0)
        for name in MASK_SCORES:
            assert float(SCORES[name](sums)) == pytest.approx(result["scores"][name]["value"], abs=1e-9), (home, name)
    tables = [csv.DictReader(committed(name)[1].splitlines()) for name in WITH_ROWS]
    assert settings == {line["settings"] for table in tables for line in table if line["state"] == "done"}


@pytest.mark.parametrize("name", WITH_ROWS)
def test_the_command_makes_nothing_and_writes_the_same_bytes(name, kept, monkeypatch):
    data = WITH_ROWS[name]

    def source(name, root):
        home = next((kept / "rows").glob(f"*-{data}-*-100pct-seed0-*"))
        settings = json.loads((home / "settings.json").read_text())
        return Source(name=name, root=root, split=settings["split"], ids=settings["ids"])

    monkeypatch.setattr(plan, "open_source", source)
    monkeypatch.setattr(runner, "attempt_job", lambda job, order: pytest.fail(f"{job.folder} is not found again"))
    assert runner.run(Order(name=name, out=kept, roots={data: kept})) == 0
    folder = kept / f"{name}-small"
    assert ((folder / "table.md").read_text(encoding="utf-8"), (folder / "table.csv").read_bytes().decode()) == (
        committed(name)
    )


def number(text):
    """What JSON had where a CSV file has this."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def score(line, name):
    return {
        end: number(line.get(f"{name}{part}", "")) for end, part in (("value", ""), ("low", "_low"), ("high", "_high"))
    }


def result_of(line, text):
    """Content of ``result.json`` of a line of ``table.csv``; what is common to all rows from ``table.md``."""
    commit = re.search(r"commit (\w+)( with local changes)?", line["commit"])
    versions = re.search(r"Versions: (.*)\.\n", text)[1].split(", ")
    result = {key: number(value) for key, value in line.items()}
    images = {"fit": int(line["images_fit"]), "inner": int(re.search(r"`inner` \((\d+)", text)[1])}
    return result | {
        "size": [int(side) for side in line["size"].split("×")],
        "images": images,
        "git": {"commit": commit[1], "changed": bool(commit[2])},
        "versions": dict(package.split(" ") for package in versions),
        "estimator": re.search(r"Intervals: (.*)\.\n", text)[1],
        "patients": int(re.search(r"of (\d+) patients", text)[1]),
    }


@pytest.mark.parametrize("name", WITHOUT_ROWS[:-1])
def test_a_table_is_written_again_from_its_own_numbers(name):
    table, (text, lines) = read_tables()[name], committed(name)
    assert isinstance(table, Table)
    rows, results = {row.name: row for row in table.rows}, []
    for line in csv.DictReader(lines.splitlines()):
        row, seed = rows[line["row"]], number(line["seed"])
        result = JobResult(row=row, data=line["data"], seed=seed, state=State(line["state"]), reason=line["reason"])
        if line["state"] == "done":
            content = result_of(line, text)
            content["images"][line["split"]] = int(line["images_scored"])
            content["ids_sha256"] = re.search(r"ids `(\w+)`", text)[1]
            content["scores"] = {n: score(line, n) for n in (*MASK_SCORES, ACCURACY)}
            content["sentences"] = score(line, "sentence_share")
            result = replace(result, result=content, folder=Path(line["settings"]))
        results.append(result)
    again = page.csv_table(table, results)
    order = Order(name=name, roots={"qata_cov19": Path("x")})
    written = page.markdown(replace(table, questions=()), table.budget("small"), results, order)
    expected = re.sub(r"\n### Questions: .*?\n\n(?=##)", "\n", text, flags=re.DOTALL)
    if name == "mmi-unet-table2":  # an earlier version had fewer columns and other words in three sentences
        old = list(csv.DictReader(lines.splitlines()))
        again = [{key: line[key] for key in old[0]} for line in csv.DictReader(again.splitlines())]
        lines, reworded = old, ("- Budget", "- Seeds", "- The checkpoint is selected")
        written, expected = (
            [line for line in t.split("\n") if not line.startswith(reworded)] for t in (written, expected)
        )
    assert again == lines
    assert written == expected
    answers = re.search(r"\| question .*?\n\n", text, re.DOTALL)[0].split("\n")[2:-2]
    assert [answer.split(" | ")[0][2:] for answer in answers] == [question.words for question in table.questions]


def test_the_table_of_maps_is_written_again_from_its_own_numbers():
    table, (text, lines) = read_tables()["grounding-qata"], committed("grounding-qata")
    rows, results, floors = {row.name: row for row in table.rows}, {}, []
    for line in csv.DictReader(lines.splitlines()):
        maps = {"cases": int(line["cases"]), "scores": {n: score(line, n) for n in MAP_SCORES}}
        maps["best_threshold"] = {n: number(line[f"best_{n}"]) for n in ("threshold", "iou", "dice")}
        if line["label"] == "floor":
            floors.append((line["phrases"], line["maps"], line["normalise"], maps))
            continue
        if line["row"] not in results:
            content = result_of(line, text) | {"map": [int(side) for side in line["map"].split("×")], "scores": {}}
            results[line["row"]] = JobResult(
                row=rows[line["row"]], data=line["data"], seed=0, state=State.DONE, result=content
            )
        of_kind = results[line["row"]].result["scores"].setdefault(line["phrases"], {"rows": {}})
        of_kind["rows"].setdefault(line["maps"], {})[line["normalise"]] = maps
    first = next(iter(results.values())).result["scores"]
    order = [(line["phrases"], line["maps"]) for line in csv.DictReader(lines.splitlines()) if line["row"] in
             ("sentence", *{maps for _, maps, _, _ in floors})]  # fmt: skip
    for kind, maps, how, values in floors:
        first[kind]["rows"].setdefault(maps, {})[how] = values
    for kind in first:  # floors stand where the first row has them
        first[kind]["rows"] = {maps: first[kind]["rows"][maps] for k, maps in dict.fromkeys(order) if k == kind}
    assert page.csv_table(table, list(results.values())) == lines
    assert f"Budget `small`: {table.budget('small').words}\n" in text
    assert text.endswith("\n".join(["## How to read it", "", *(f"- {note}" for note in table.texts.notes)]) + "\n")
    for question in table.questions:
        assert text.count(f"| {question.words} | ") == 4

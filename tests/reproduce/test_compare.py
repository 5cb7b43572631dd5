"""Comparisons of rows, against hand-made cases; and what the digits of printed scores tell of how they were made."""

import csv
import json
import re

import numpy as np
import pytest

from textray.errors import DataError
from textray.metrics import intervals
from textray.metrics.segmentation import case_columns
from textray.reproduce import page
from textray.reproduce.compare import Case, Protocol, answer, gap, protocol_of, rank, read_masks, read_phrases
from textray.reproduce.plan import JobResult, State
from textray.reproduce.tables import Question, Scores, read_tables

QUESTION = Question(words="Is two better?", first="one", second="two")


def masks(folder, hits, *, images="ab", mode="none"):
    """Scores of one row, read back."""
    folder.mkdir()
    (folder / "summary.json").write_text("{}")
    lines = [f"{image},,none,,{hits},1,1,1,0.5,0.3,0,0" for image in images]
    head = "image,patient,mode,zones,tp,fp,fn,tn,dice,iou,truth_empty,prediction_empty"
    (folder / "cases.csv").write_text("\n".join([head, *lines]) + "\n")
    return read_masks(folder, mode)


def test_the_difference_is_the_second_rows_minus_the_firsts(tmp_path):
    one, two = masks(tmp_path / "one", 1), masks(tmp_path / "two", 3)
    found = answer(QUESTION, {0: one}, {0: two})
    assert found.differences["dice_pooled"].value == pytest.approx(6 / 8 - 2 / 4)
    assert found.by_seed["dice_per_image"] == (pytest.approx(6 / 8 - 2 / 4),)
    assert answer(QUESTION, {0: one}, {0: one}).by_seed["dice_pooled"] == (0.0,)


def test_cases_are_read_again_when_written_again_and_not_of_other_runs_or_images(tmp_path):
    first = masks(tmp_path / "one", 1)
    path = tmp_path / "one/cases.csv"
    path.write_text(path.read_text().replace(",1,1,1,1,", ",5,1,1,1,"))
    assert read_masks(tmp_path / "one", "none") != first
    with pytest.raises(DataError, match="one and two were scored on other images"):
        answer(QUESTION, {0: first}, {0: masks(tmp_path / "two", 3, images="ac")})
    (tmp_path / "one/summary.json").write_text(json.dumps({"files": {"cases.csv": "0" * 64}}))
    with pytest.raises(DataError, match="different evaluations"):
        read_masks(tmp_path / "one", "none")


def test_better_needs_every_seed_and_one_seed_says_so(tmp_path):
    one, two = masks(tmp_path / "one", 1), masks(tmp_path / "two", 3)
    alone = answer(QUESTION, {0: one}, {0: two})
    assert alone.words("dice_pooled") == "better, one seed"
    assert answer(QUESTION, {0: two}, {0: one, 7: two}).words("dice_pooled") == "worse, one seed"
    both = {0: one, 1: one}, {0: two, 1: two}
    assert answer(QUESTION, *both).words("dice_pooled") == "better"
    odd = both[0] | {2: two}, both[1] | {2: one}
    assert answer(QUESTION, *odd).words("dice_pooled") == "not told apart"  # a seed says otherwise
    assert answer(QUESTION, {0: one}, {}).words("dice_pooled") == "rows are missing"


def test_phrases_are_compared_where_both_have_them(tmp_path):
    names = [f"{name}_{t}" for name in ("iou", "dice") for t in (0.1, 0.2, 0.3, 0.4, 0.5)]
    rng, values = np.random.default_rng(0), {}
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "phrase", "row", "normalise", *names])
        for maps in ("model", "mirrored"):
            for image in "abcd" if maps == "model" else "abc":  # a control can have fewer
                values[maps, image] = rng.random(10).round(6)
                writer.writerow([image, "p", "words", maps, "minmax", *values[maps, image]])
    (tmp_path / "summary.json").write_text("{}")
    sides = [{0: read_phrases(tmp_path, maps=maps, how="minmax")} for maps in ("mirrored", "model")]
    table = read_tables()["grounding-qata"]
    result = JobResult(row=table.rows[0], data="qata_cov19", state=State.DONE, seed=0, folder=tmp_path)
    pair = [(table.rows[0].name, lambda scores, side=side: side[0]) for side in sides]
    ((*start, shown, _, each),) = page._answers(table, [result], [(QUESTION, "minmax", *pair)])
    assert start[:2] == [QUESTION.words, "minmax"]
    assert re.fullmatch(rf"{re.escape(each)} \[[+-]0\.\d{{3}}, [+-]0\.\d{{3}}\]", shown)
    found = answer(QUESTION, *sides, {"dice": lambda totals: totals[..., 1] / totals[..., -1]})
    by_hand = np.mean([values["model", i][5:].mean() - values["mirrored", i][5:].mean() for i in "abc"])
    assert found.by_seed["dice"][0] == pytest.approx(by_hand)
    assert found.differences["dice"].value == pytest.approx(by_hand)
    assert read_phrases(tmp_path, maps="model", how="none") == {}


def printed(table, data="qata_cov19"):
    return {row.label: row.scores[data] for row in read_tables()[table].printed}


def test_table_1_mixes_two_protocols_on_both_data_sets():
    for data in ("qata_cov19", "mosmed_plus"):
        protocols = {label: protocol_of(scores) for label, scores in printed("mmi-unet-table1", data).items()}
        assert len(protocols) == 16
        assert {n for n, p in protocols.items() if p is Protocol.POOLED} == {"GuideDecoder", "MMI-UNet"}
        assert set(protocols.values()) == {Protocol.POOLED, Protocol.PER_IMAGE}
    for data, points in (("qata_cov19", {"UNet": 4.14, "nnUNet": 3.56, "LViT": 3.20, "GuideDecoder": -0.01}),
                         ("mosmed_plus", {"Swin-UNet": 3.89, "LViT": 1.88, "MMI-UNet": 0.00})):  # fmt: skip
        rows = printed("mmi-unet-table1", data)
        assert {label: gap(rows[label]) for label in points} == pytest.approx(points, abs=0.0101)


def test_protocols_of_the_ablations():
    second, third = printed("mmi-unet-table2"), printed("mmi-unet-table3")
    assert protocol_of(second["MMI-UNet w/ GD"]) is Protocol.UNCLEAR
    assert protocol_of(third.pop("nnUNet (100% training data)")) is Protocol.PER_IMAGE
    assert {protocol_of(scores) for scores in third.values()} == {Protocol.POOLED}
    ablation = {label: protocol_of(scores) for label, scores in printed("sgseg-table2").items()}
    assert [n for n, p in ablation.items() if p is Protocol.IMPOSSIBLE] == ["Without Text", "Full Text"]
    assert ablation["Vision-language pre-training (CLIP)"] is Protocol.POOLED


def test_scores_are_read_as_they_are_shown():
    for text in ("79.02 / 69.46", "97.1 / 87.4 / 77.8"):
        assert str(Scores.parse(text)) == text
    assert protocol_of(Scores.parse("97.1 / 87.4 / 77.8")) is Protocol.UNCLEAR
    assert protocol_of(Scores(dice=84.6, iou=72.5)) is Protocol.IMPOSSIBLE
    with pytest.raises(ValueError, match="no scores"):
        Scores.parse("79.02")


def row_of(hits):
    """A row of one seed: an image of a patient each, with so many of 10 lesion pixels found and none beside."""
    counts = np.array([[hit, 0, 10 - hit, 5] for hit in hits], np.int64)
    columns = case_columns(counts)
    return {0: {(f"i{n}",): Case(f"p{n}", tuple(line)) for n, line in enumerate(columns)}}


def test_ranks_and_how_sure_they_are_equal_the_slow_ones():
    rng = np.random.default_rng(0)
    hits = {"bad": rng.integers(0, 3, 12), "good": rng.integers(4, 10, 12), "fair": rng.integers(3, 10, 12)}
    found = rank({name: row_of(values) for name, values in hits.items()})
    order = sorted(hits, key=lambda name: -2 * hits[name].sum() / (hits[name].sum() + 120))
    assert [one.name for one in found] == order
    draws = np.random.default_rng(intervals.SEED).multinomial(12, [1 / 12] * 12, size=intervals.DRAWS)
    labels = np.argsort([f"p{n}" for n in range(12)])  # patients are drawn in the order of their labels
    places = {name: [] for name in order}
    for draw in draws:
        sums = {name: float(draw @ hits[name][labels]) for name in order}
        drawn = sorted(order, key=lambda name: -2 * sums[name] / (sums[name] + 120))
        for name in order:
            places[name].append(drawn.index(name) + 1)
    for place, one in enumerate(found, start=1):
        assert one.score == pytest.approx(2 * hits[one.name].sum() / (hits[one.name].sum() + 120))
        assert one.kept == pytest.approx(np.mean([p == place for p in places[one.name]]), abs=0.005)
        assert one.range == (*np.quantile(places[one.name], [0.025, 0.975], method="nearest"),)
    assert found[1].apart
    assert not found[0].apart
    assert found[2].above is None


def test_rows_are_ranked_on_what_all_of_them_have():
    one, two = row_of([9, 0, 0]), row_of([5, 5])
    assert [found.name for found in rank({"one": one, "two": two})] == ["two", "one"]
    del two[0]["i1",]
    assert [found.name for found in rank({"one": one, "two": two})] == ["one", "two"]
    assert rank({"one": one, "two": {1: two[0]}}) == ()
    assert rank({}) == ()
    same = rank({"one": one, "two": one})
    assert (same[0].kept, same[0].above, same[0].apart) == (1.0, 0.0, False)

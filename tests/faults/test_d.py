"""D: data sets and training."""

import csv
import io
import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

with suppress(ImportError):
    import lightning  # noqa: F401 -- its log writes to the stderr that it finds when it is imported

FILM = "covid_00000"
IMAGE, MASK, TABLE = f"Train Set/Images/{FILM}.png", f"Train Set/Ground-truths/mask_{FILM}.png", "prompt/train.csv"


def clean(root):
    """A copy as it is."""


def mask(change, **options):
    """Change the levels of a mask and write it as it came, or with options of Pillow."""

    def spoil(root):
        with PILImage.open(root / MASK) as picture:
            levels = np.array(picture)
        PILImage.fromarray(change(levels)).save(root / MASK, **options)

    return spoil


def jpeg_mask(root):
    mask(lambda levels: levels, format="JPEG", quality=95)(root)
    (root / MASK).rename((root / MASK).with_suffix(".jpg"))


def palette(root):
    with PILImage.open(root / MASK) as levels:
        picture = PILImage.fromarray((np.array(levels) > 0).astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(root / MASK)


def grey_edges(levels):
    """Edges that are smoothed to both sides of the half."""
    inside = levels > 0
    edge = inside & ~(np.roll(inside, 1, 0) & np.roll(inside, -1, 0))
    return np.where(edge, 180, np.where(np.roll(edge, 1, 1) & ~inside, 60, levels)).astype(np.uint8)


def content(path, change):
    return lambda root: (root / path).write_bytes(change((root / path).read_bytes()))


def copy(path, twin):
    return lambda root: shutil.copy(root / path, root / twin)


def rows(change):
    """Change the rows of the table of the train part, without its heading."""

    def spoil(root):
        with (root / TABLE).open(newline="") as file:
            head, *lines = csv.reader(file)
        write(root / TABLE, [head, *change(lines)])

    return spoil


def write(path, lines, encoding="utf-8", **form):
    text = io.StringIO(newline="")
    csv.writer(text, **form).writerows(lines)
    path.write_bytes(text.getvalue().encode(encoding))


def table(encoding="utf-8", before=b"", **form):
    """Write the same table in another form of CSV."""

    def spoil(root):
        with (root / TABLE).open(newline="") as file:
            lines = list(csv.reader(file))
        write(root / TABLE, lines, encoding, **form)
        (root / TABLE).write_bytes(before + (root / TABLE).read_bytes())

    return spoil


def xlsx(root):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    with (root / TABLE).open(newline="") as file:
        for line in csv.reader(file):
            book.active.append(line)
    book.save((root / TABLE).with_suffix(".xlsx"))
    (root / TABLE).unlink()


def numbered(root):
    """A film that is named by a number with zeros in front."""
    for path in (root / IMAGE, root / MASK):
        path.rename(path.with_name(path.name.replace(FILM, "007")))
    content(TABLE, lambda raw: raw.replace(FILM.encode(), b"007"))(root)


def leak(root):
    """One film of val gets the name of a patient of train."""
    for path in [*(root / "Train Set").rglob("*sub-S50000_ses-E0_*"), root / TABLE]:
        if path.suffix == ".png":
            path.rename(path.with_name(path.name.replace("sub-S50000_ses-E0_", "sub-S10000_ses-E99_")))
        else:
            content(TABLE, lambda raw: raw.replace(b"sub-S50000_ses-E0_", b"sub-S10000_ses-E99_"))(root)


def ambiguous(levels):
    """Levels of a mask that no rule parts."""
    return np.where(levels > 0, 90, np.arange(levels.shape[1])).astype(np.uint8)


def without(*paths):
    return lambda root: [(root / path).unlink() for path in paths]


REFUSED = {"exit": 3, "words": FILM}

CASES = [
    ("D01a", "a mask of another size", mask(lambda m: m[::2]), REFUSED | {"codes": ("E_MASK_SIZE",)}),
    ("D01b", "an image that is cut off", content(IMAGE, lambda raw: raw[:-40]), REFUSED | {"codes": ("E_TRUNCATED",)}),
    ("D01c", "a mask that is cut off", content(MASK, lambda raw: raw[:-30]), REFUSED | {"codes": ("E_TRUNCATED",)}),
    ("D01d", "a page named .png", content(IMAGE, lambda raw: b"<html>"), REFUSED | {"codes": ("E_FORMAT",)}),
    ("D02a", "a mask with smooth edges", mask(grey_edges), {"codes": ("W_MASK_VALUES",), "same_as": clean}),
    ("D02b", "a mask in JPEG", jpeg_mask, {"codes": ("W_MASK_VALUES",), "same_as": clean}),
    ("D02c", "levels that no rule parts", mask(ambiguous), REFUSED | {"codes": ("E_DATA",)}),
    ("D03a", "a mask of 0 and 1", mask(lambda m: m // 255), {"same_as": clean}),
    ("D03f", "a mask of one bit", mask(lambda m: m > 0), {"codes": ("W_MASK_MODE",), "same_as": clean}),
    (
        "D03b",
        "a red mask",
        mask(lambda m: np.dstack([m, m * 0, m * 0])),
        {"codes": ("W_MASK_MODE",), "same_as": clean},
    ),
    ("D03c", "a mask with a palette", palette, {"codes": ("W_MASK_MODE",), "same_as": clean}),
    (
        "D03d",
        "a mask in the opacity",
        mask(lambda m: np.dstack([m * 0 + 255] * 3 + [m])),
        {"codes": ("W_MASK_MODE",), "same_as": clean},
    ),
    ("D03e", "an inverted mask", mask(lambda m: 255 - m), {"codes": ("W_MASK_INVERTED",)}),
    ("D04a", "an empty mask", mask(np.zeros_like), {"codes": ("W_MASK_EMPTY",), "words": "train empty masks: 1"}),
    (
        "D04b",
        "a mask that is all lesion",
        mask(lambda m: np.full_like(m, 255)),
        {"codes": ("W_MASK_FULL",), "words": "full masks: 1"},
    ),
    ("D05a", "no row for an image", rows(lambda r: r[1:]), REFUSED | {"codes": ("E_CAPTION_MISSING",)}),
    (
        "D05b",
        "a row without an image",
        rows(lambda r: [*r, ["mask_x.png", "no infection."]]),
        {"exit": 3, "codes": ("E_CAPTION_EXTRA",), "words": "mask_x"},
    ),
    ("D05c", "a blank caption", rows(lambda r: [[r[0][0], " "], *r[1:]]), REFUSED | {"codes": ("E_CAPTION_BLANK",)}),
    (
        "D05d",
        "a caption in other words",
        rows(lambda r: [[r[0][0], "lung bad"], *r[1:]]),
        REFUSED | {"codes": ("E_CAPTION_WORDS",)},
    ),
    ("D05e", "no mask for an image", without(MASK), REFUSED | {"codes": ("E_PAIR",)}),
    ("D05f", "no image for a mask", without(IMAGE), REFUSED | {"codes": ("E_PAIR",)}),
    ("D06a", "a row twice", rows(lambda r: [*r, r[0]]), REFUSED | {"codes": ("E_DUPLICATE_ID",)}),
    (
        "D06b",
        "two masks whose names differ in case",
        copy(MASK, MASK.replace("covid", "Covid")),
        {"exit": 3, "codes": ("E_CASE",), "words": FILM.replace("covid", "Covid")},
    ),
    (
        "D06c",
        "two images of one name with other endings",
        copy(IMAGE, IMAGE.replace(".png", ".jpg")),
        REFUSED | {"codes": ("E_SAME_STEM",)},
    ),
    ("D07a", "a table with a byte order mark", table(before=b"\xef\xbb\xbf"), {"same_as": clean}),
    ("D07b", "a table with semicolons", table(delimiter=";"), {"same_as": clean}),
    ("D07c", "a table in UTF-16", table("utf-16"), {"same_as": clean}),
    ("D07d", "a table as Excel announces it", table(before=b"sep=|\r\n", delimiter="|"), {"same_as": clean}),
    (
        "D07e",
        "a table of line feeds with all cells in quotes",
        table(lineterminator="\n", quoting=1),
        {"same_as": clean},
    ),
    ("D07f", "an XLSX", xlsx, {"same_as": clean}),
    ("D07g", "a number with zeros in front as a name", numbered, {}),
    (
        "D07h",
        "a caption with commas outside of quotes",
        content(TABLE, lambda raw: raw.replace(b'"', b"")),
        {"exit": 3, "codes": ("E_DATA",), "words": "more columns than the first line"},
    ),
    (
        "D07i",
        "a table that is none",
        content(TABLE, lambda raw: b"\x00\x01"),
        {"exit": 3, "codes": ("E_DATA",), "words": "train.csv"},
    ),
    ("D07j", "no table", without(TABLE), {"exit": 2, "codes": ("E_LAYOUT",), "words": "train.csv"}),
    (
        "D08",
        "a patient in train and in val",
        leak,
        {"exit": 3, "codes": ("E_PATIENT_LEAK",), "words": "sub-S10000"},
    ),
]


@pytest.mark.parametrize(("make", "answer"), [case[2:] for case in CASES], ids=[case[0] for case in CASES])
def test_d(make, answer, attempt_data):
    attempt_data(make, **answer)


RECIPE = """\
seed_everything: 3
trainer: {max_epochs: 1, enable_progress_bar: false}
data: {data: qata_cov19, size: [32, 32], batch_size: 4, workers: 0, augment: light}
model:
  network: {class_path: textray.models.baselines.unet.UNet, init_args: {config: {width: 4}}}
  text_encoder: null
"""


@pytest.fixture
def fit(train, tmp_path, monkeypatch):
    """Train a tiny network on a copy: ``fit(root, out, ...) -> CliResult``."""
    pytest.importorskip("lightning", reason="textray[train] is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return lambda root, out, *more: train("--config", "tiny.yaml", f"--data.root={root}", "--out", out, *more)


REFUSALS = [pytest.param(make, answer, id=name) for name, _, make, answer in CASES if answer.get("exit")]


@pytest.mark.filterwarnings("ignore")  # a training in this process says what a user sees on the standard error
@pytest.mark.parametrize(("make", "answer"), REFUSALS)
def test_d01_training_refuses_what_the_check_refuses_and_leaves_neither_cache_nor_checkpoint(
    fit, copy_of_data, tmp_path, make, answer
):
    root = copy_of_data("odd")
    make(root)
    refused = fit(root, "run")
    assert refused.code == answer["exit"], refused.err
    assert answer["words"] in refused.err
    assert "error E_" in refused.err
    assert "E_INTERNAL" not in refused.err
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert list((tmp_path / "run").rglob("*.ckpt")) == []


def test_d05_images_without_a_caption_are_left_out_or_counted_as_told(scores, copy_of_data, tmp_path):
    root = copy_of_data("odd")
    rows(lambda lines: [[lines[0][0], "NaN"], *lines[2:]])(root)
    assert scores(root)[0].code == 3
    skipped = scores(root, "train", "--missing-captions", "skip")[1]
    assert (FILM, "oracle") not in skipped
    assert ("covid_00002", "oracle") in skipped
    assert scores(root, "train", "--missing-captions", "text-free")[1][FILM, "oracle"]["zones"] == ""
    summary = json.loads((tmp_path / "scores-odd-train" / "summary.json").read_bytes())
    assert summary["images_without_text"]["oracle"] == 2
    refused = scores(copy_of_data("other"), "train", "--missing-captions", "guess")[0]
    assert (refused.code, "error E_USAGE: " in refused.err) == (2, True)


def test_d09_the_order_of_a_folder_changes_nothing(scores, copy_of_data, monkeypatch):
    root, parts, of_folder = copy_of_data("data"), ("fit", "inner", "val"), Path.iterdir
    found = []
    for backwards in (False, True):
        monkeypatch.setattr(Path, "iterdir", lambda path, way=backwards: iter(sorted(of_folder(path), reverse=way)))
        found.append([list(scores(root, part)[1].items()) for part in parts])
    assert found[0] == found[1]
    assert all(found[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("more", ["--data.batch_size=1", "--data.limit=1"])
def test_d10_a_batch_of_one_image_trains_or_is_refused_with_what_to_do(fit, copy_of_data, more):
    root = copy_of_data("odd")
    assert fit(root, "run", more).code == 0
    refused = fit(root, "small", more, "--data.size=[16,16]")
    assert refused.code == 2
    assert "error E_USAGE: a batch of one image leaves a norm with one value" in refused.err
    assert "data.batch_size" in refused.err


@pytest.mark.filterwarnings("ignore")
def test_d10_a_part_without_any_lesion_trains_and_is_scored(fit, copy_of_data):
    root = copy_of_data("odd")
    for path in (root / "Train Set/Ground-truths").iterdir():
        with PILImage.open(path) as picture:
            PILImage.new("L", picture.size).save(path)
    assert fit(root, "run").code == 0
    assert "nan" not in Path("run/log/version_0/metrics.csv").read_text().lower()


@pytest.mark.filterwarnings("ignore")
def test_d11_a_loss_that_is_no_number_ends_the_training_and_names_its_images(fit, copy_of_data):
    ended = fit(copy_of_data("odd"), "run", "--model.lr=1e30")
    assert ended.code == 2
    assert "error E_USAGE: the loss is nan in epoch 0, batch 1. Got images ['" in ended.err
    assert not list(Path("run").rglob("*.ckpt"))


def test_d12_pairs_of_which_both_are_empty_count_as_right_or_not_at_all(
    cli, copy_of_data, changed, tiny_bundle, tmp_path
):
    root, nothing = copy_of_data("odd"), changed(tiny_bundle, threshold=0.999999)
    mask(np.zeros_like)(root)
    words = ["--data", "qata_cov19", "--root", root, "--split", "train", "--text-mode", "none", "--out", tmp_path / "s"]
    assert cli("evaluate", *words, "--model", nothing, "--threads", "1").code == 0
    summary = json.loads((tmp_path / "s" / "summary.json").read_bytes())
    assert summary["empty"]["none"] == {"truth": 1, "prediction": 32, "both": 1}
    assert summary["modes"]["none"]["dice_per_image"]["value"] == 1 / 32
    assert summary["modes"]["none"]["dice_per_lesion_image"]["value"] == 0
    page = (tmp_path / "s" / "summary.md").read_text()
    assert "empty" in page
    assert "nan" not in page.lower()


@pytest.mark.filterwarnings("ignore")
def test_d14_the_same_seed_gives_the_same_weights(fit, copy_of_data):
    torch = pytest.importorskip("torch")
    root = copy_of_data("data")
    for out, seed in (("one", 3), ("two", 3), ("other", 4)):
        assert fit(root, out, f"--seed_everything={seed}").code == 0
    one, two, other = (
        torch.load(f"{out}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for out in ("one", "two", "other")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)

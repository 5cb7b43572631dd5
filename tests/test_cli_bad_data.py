"""Faulty copies of a data set through `textray data check`, `evaluate` and `train`: listed, refused, never guessed."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

SIDES = ("left", "right")
MASKS = "Train Set/Ground-truths"
IMAGES = "Train Set/Images"
SIZE = (48, 40)


def caption(i):
    return f"unilateral pulmonary infection, one infected area, lower {SIDES[i % 2]} lung."


@pytest.fixture
def root(tmp_path):
    """A fake of the official layout: 20 train rows, of which 16 are the split train and 4 val; two films a patient."""
    root = tmp_path / "QaTa-COV19-v2"
    for folder in (IMAGES, MASKS, "prompt"):
        (root / folder).mkdir(parents=True)
    rows = []
    for i in range(20):
        name = f"sub-S{i // 2:02}_ses-{i}"
        pixels = np.random.default_rng(i).integers(0, 200, SIZE, dtype=np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        mask[30:44, 4:18] = 255
        PILImage.fromarray(pixels).save(root / IMAGES / f"{name}.png")
        PILImage.fromarray(mask if i % 2 == 0 else mask[:, ::-1]).save(root / MASKS / f"mask_{name}.png")
        rows.append((f"mask_{name}.png", caption(i)))
    write_table(root, rows)
    return root


def write_table(root, rows):
    with (root / "prompt/train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("Image", "Description"), *rows])


def table(root):
    with (root / "prompt/train.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def name_of(i):
    return f"sub-S{i // 2:02}_ses-{i}"


def mask_path(root, i=0):
    return root / MASKS / f"mask_{name_of(i)}.png"


def mask_levels(root, i=0):
    with PILImage.open(mask_path(root, i)) as picture:
        return np.array(picture)


def save_mask(root, levels, i=0, **options):
    picture = levels if isinstance(levels, PILImage.Image) else PILImage.fromarray(levels)
    picture.save(mask_path(root, i), format=options.pop("format", "PNG"), **options)


@pytest.fixture
def check(cli, root):
    """Run ``data check``: nothing is written, text and JSON agree; gives the exit code and codes by path."""

    def run():
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        result = cli("data", "check", "qata_cov19", root, "--json")
        plain = cli("data", "check", "qata_cov19", root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
        assert plain.code == result.code
        (row,) = result.rows
        assert row["ok"] == (result.code == 0)
        for problem in row["problems"]:
            assert problem["code"] in plain.out
            assert problem["path"] in plain.out
        run.counts, run.text = row["counts"], plain.out
        return result.code, {(p["code"], Path(p["path"]).name) for p in row["problems"]}

    return run


@pytest.fixture
def evaluate(cli, root, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return cli(
            "evaluate", "--data", "qata_cov19", "--root", root, "--split", "train", "--model", tiny_bundle,
            "--threads", "1", "--out", "scores", *args,
        )  # fmt: skip

    return run


def refused(result, code, *words):
    assert result.code == 3, result.err
    assert f"error {code}: " in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    for word in words:
        assert word in result.err
    assert not Path("scores").exists() or list(Path("scores").iterdir()) == []


def summary():
    return json.loads(Path("scores/summary.json").read_bytes())


def cases():
    with Path("scores/cases.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["mode"] == "oracle"]


def lesion(i=0):
    """Pixels of an image's lesion, by the table of cases."""
    case = next(case for case in cases() if case["image"] == name_of(i))
    return int(case["tp"]) + int(case["fn"])


def test_a_good_copy_passes_check_and_evaluation(check, evaluate):
    assert check() == (0, set())
    assert evaluate().code == 0
    assert summary()["images"] == 16


# ---- D01: sizes


@pytest.mark.parametrize("size", [(24, 20), (48, 41)])
def test_d01_a_mask_of_another_size_is_listed_and_refused(check, evaluate, root, size):
    levels = np.zeros(size, np.uint8)
    levels[4:9, 4:9] = 255
    save_mask(root, levels)
    assert check() == (3, {("E_MASK_SIZE", f"mask_{name_of(0)}.png")})
    assert f"is {size[0]} x {size[1]} pixels, its image 48 x 40" in check.text
    refused(evaluate(), "E_DATA", "E_MASK_SIZE", mask_path(root).name)


def ambiguous(root):
    """Levels of a mask that no rule parts."""
    return np.where(mask_levels(root) > 0, 90, np.arange(40, dtype=np.uint8)).astype(np.uint8)


TRAIN = """
trainer: {{max_epochs: 1, enable_progress_bar: false}}
data: {{data: qata_cov19, root: '{root}', size: [32, 32], batch_size: 4, workers: 0, normalise: percentile}}
model:
  network:
    class_path: textray.models.mmi_unet.MMIUNet
    init_args: {{config: {{trunk: efficientnet_lite0, text_width: 32, decoder_channels: [8, 8, 8]}}}}
  text_encoder: tiny
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", ["size", "cut image"])
def test_d01_training_refuses_too_and_leaves_neither_cache_nor_checkpoint(train, root, tmp_path, monkeypatch, fault):
    pytest.importorskip("lightning", reason="textray[train] is not installed")
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    image = root / IMAGES / f"{name_of(0)}.png"
    if fault == "size":
        save_mask(root, np.zeros((24, 20), np.uint8))
    else:
        image.write_bytes(image.read_bytes()[:-40])
    (tmp_path / "recipe.yaml").write_text(TRAIN.format(root=root))
    result = train("--config", tmp_path / "recipe.yaml", "--out", tmp_path / "trained")
    code, name = {"size": ("E_DATA", mask_path(root).name), "cut image": ("E_TRUNCATED", image.name)}[fault]
    assert result.code == 3
    assert f"error {code}: " in result.err
    assert name in result.err
    assert "Traceback" not in result.err
    assert list((tmp_path / "trained").rglob("*.ckpt")) == []
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


# ---- D02, D03, D04: levels and forms of masks, by the codes that check gives and the pixels of the lesion


def grey_edges(levels):
    levels[0, :24], levels[1, :24] = 100, 200
    return levels


LESION = 14 * 14
MASKS_READ = {
    "grey edges": (grey_edges, "W_MASK_VALUES", LESION + 24),
    "level 1": (lambda levels: levels // 255, None, LESION),
    "level 254": (lambda levels: levels // 255 * 254, None, LESION),
    "rgb": (lambda levels: np.repeat(levels[..., None], 3, axis=2), "W_MASK_MODE", LESION),
    "faint blue": (lambda levels: np.stack([levels * 0, levels * 0, levels // 255], axis=2), "W_MASK_MODE", LESION),
    "one bit": (lambda levels: PILImage.fromarray(levels > 0), "W_MASK_MODE", LESION),
    "sixteen": (lambda levels: levels.astype(np.uint16) * 257, "W_MASK_MODE", LESION),
    "inverted": (lambda levels: 255 - levels, "W_MASK_INVERTED", SIZE[0] * SIZE[1] - LESION),
    "empty": (lambda levels: levels * 0, "W_MASK_EMPTY", 0),
    "full": (lambda levels: np.full_like(levels, 255), "W_MASK_FULL", SIZE[0] * SIZE[1]),
}


@pytest.mark.parametrize("kind", MASKS_READ)
def test_d02_d03_d04_masks_are_read_by_one_rule_with_a_warning(check, evaluate, root, kind):
    change, code, pixels = MASKS_READ[kind]
    save_mask(root, change(mask_levels(root)))
    assert check() == (0, {(code, mask_path(root).name)} if code else set())
    assert (check.counts["train empty masks"], check.counts["train full masks"]) == (kind == "empty", kind == "full")
    if kind == "grey edges":
        assert "2.5 %" in check.text  # 48 of 1,920 pixels
    assert evaluate().code == 0
    assert lesion() == pixels
    assert [case["truth_empty"] for case in cases() if case["image"] == name_of(0)] == [str(int(kind == "empty"))]
    assert "nan" not in Path("scores/summary.json").read_text().lower()
    assert kind != "empty" or "empty" in Path("scores/summary.md").read_text().lower()


def test_d02_artefacts_of_jpeg_give_a_warning_and_do_not_change_the_lesion(check, evaluate, root):
    save_mask(root, mask_levels(root), format="JPEG", quality=70)
    assert check() == (0, {("W_MASK_VALUES", mask_path(root).name)})
    assert evaluate().code == 0
    assert lesion() == pytest.approx(LESION, abs=8)


def test_d02_levels_that_no_rule_parts_are_refused_by_name(check, evaluate, root):
    save_mask(root, ambiguous(root))
    assert check() == (3, {("E_DATA", mask_path(root).name)})
    refused(evaluate(), "E_DATA", mask_path(root).name, "ambiguous")


# ---- D05: the caption table


FAULTS = {  # changes of the rows of the caption table, the code, and the image named
    "missing": (lambda rows: rows[1:], "E_CAPTION_MISSING", name_of(0)),
    "blank": (lambda rows: [[rows[0][0], " "], *rows[1:]], "E_CAPTION_BLANK", name_of(0)),
    "nan": (lambda rows: [[rows[0][0], "NaN"], *rows[1:]], "E_CAPTION_BLANK", name_of(0)),
    "words": (lambda rows: [[rows[0][0], "nothing to see"], *rows[1:]], "E_CAPTION_WORDS", name_of(0)),
    "extra": (lambda rows: [*rows, ["mask_sub-S99_ses-99.png", caption(0)]], "E_CAPTION_EXTRA", "sub-S99_ses-99"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_d05_captions_that_do_not_fit_are_listed_by_id_and_handled_by_policy(check, evaluate, root, fault):
    change, code, name = FAULTS[fault]
    write_table(root, change(table(root)))
    found, problems = check()
    assert found == 3
    assert {problem for problem, _ in problems} == {code}
    assert name in check.text
    refused(evaluate(), "E_DATA", code, name)
    images = {}
    for policy in ("skip", "text-free"):
        assert evaluate("--captions", policy).code == 0
        images[policy] = {row["image"]: row["zones"] for row in cases()}
    if fault != "extra":
        assert name not in images["skip"]
        assert images["text-free"][name] == ""
        assert summary()["images_without_text"]["oracle"] == 1
    wrong = evaluate("--captions", "guess")
    assert wrong.code == 2
    assert "error E_USAGE: " in wrong.err


@pytest.mark.parametrize(
    "raw", [b"", b"Name,Words\na,b\n", b'Image,Description\n"mask_a.png,no infection.\n', b"\x00\x01"]
)
def test_d05_a_table_that_is_none_is_refused(cli, root, evaluate, raw):
    (root / "prompt/train.csv").write_bytes(raw)
    result = cli("data", "check", "qata_cov19", root)
    assert result.code == 3
    assert "error E_DATA: " in result.err
    assert "train.csv" in result.err
    refused(evaluate(), "E_DATA", "train.csv")


def test_d05_a_lacking_table_is_a_fault_of_layout(cli, root, evaluate):
    (root / "prompt/train.csv").unlink()
    for result in (cli("data", "check", "qata_cov19", root), evaluate()):
        assert result.code == 2
        assert "error E_LAYOUT: " in result.err
        assert "train.csv" in result.err


# ---- D06: colliding names


def test_d06_a_row_that_stands_twice_is_refused(check, evaluate, root):
    write_table(root, [*table(root), table(root)[0]])
    assert check() == (3, {("E_DUPLICATE_ID", "train.csv")})
    assert "stands in row 2 of prompt/train.csv already" in check.text
    refused(evaluate(), "E_DATA", "E_DUPLICATE_ID")


@pytest.mark.parametrize(
    ("folder", "kind"), [(IMAGES, "case"), (MASKS, "case"), (IMAGES, "ending"), (MASKS, "case of the ending")]
)
def test_d06_names_that_collide_are_refused_with_both_paths(check, evaluate, root, folder, kind):
    prefix = "mask_" if folder == MASKS else ""
    first = root / folder / f"{prefix}{name_of(0)}.png"
    second = first.with_name(
        {
            "case": f"{prefix}{name_of(0).upper()}.png",
            "ending": f"{prefix}{name_of(0)}.jpg",
            "case of the ending": f"{prefix}{name_of(0)}.PNG",
        }[kind]
    )
    second.write_bytes(first.read_bytes())
    if len(list((root / folder).iterdir())) != 21:
        pytest.skip("this file system knows no case")
    code, problems = check()
    assert code == 3
    assert {problem for problem, _ in problems} == {"E_CASE" if kind == "case" else "E_SAME_STEM"}
    for path in (first, second):
        assert str(path.relative_to(root)) in check.text
    refused(evaluate(), "E_DATA", first.name, second.name)


# ---- what evaluation says of a file that cannot be read


@pytest.mark.parametrize(
    ("damage", "code", "folder"),
    [(lambda raw: raw[:-30], "E_TRUNCATED", MASKS), (lambda raw: b"<html>", "E_FORMAT", IMAGES)],
)
def test_a_file_that_cannot_be_read_is_named(check, evaluate, root, damage, code, folder):
    path = root / folder / f"{'mask_' if folder == MASKS else ''}{name_of(0)}.png"
    path.write_bytes(damage(path.read_bytes()))
    found, problems = check()
    assert found == 3
    assert (code, path.name) in problems
    result = evaluate()
    assert result.code == 3
    assert "error E_" in result.err
    assert path.name in result.err
    assert list(Path("scores").glob("*")) == []

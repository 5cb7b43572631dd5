"""Small copies of data sets in their published layouts, made without code of the readers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LEFT = "unilateral pulmonary infection, one infected area, upper left lung."
RIGHT = "unilateral pulmonary infection, one infected area, lower right lung."


def names_of(train, test):
    """10 % of the train rows carry no patient; patients have two images each and lie on one side of the cut."""
    cut, without = int(train * 0.8), train // 10
    first = [f"covid_{i}" for i in range(1, without + 1)]
    first += [f"sub-S1{i // 2:04d}_ses-E{i}_run-1_bp-chest_vp-ap_dx" for i in range(cut - without)]
    first += [f"sub-S2{i // 2:04d}_ses-E{i}_run-1_bp-chest_vp-pa_cr" for i in range(train - cut)]
    return first, [f"sub-S3{i // 2:04d}_ses-E{i}_run-1_bp-chest_cr" for i in range(test)]


def save(path, levels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(levels)).save(path)


def write_part(root, part, names, size=(24, 20)):
    folder = root / f"{part.capitalize()} Set"
    (root / "prompt").mkdir(parents=True, exist_ok=True)
    rng, mask = np.random.default_rng(len(names)), np.zeros(size, np.uint8)
    mask[3:8, 2:7] = 255
    lines = ["Image,Description"]
    for i, name in enumerate(names):
        save(folder / "Images" / f"{name}.png", rng.integers(0, 256, size, dtype=np.uint8))
        save(folder / "Ground-truths" / f"mask_{name}.png", mask)
        lines.append(f'mask_{name}.png,"{(LEFT, RIGHT)[i % 2]}"')
    (root / "prompt" / f"{part}.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode())


@pytest.fixture
def recipe(tmp_path):
    """``recipe(name, root, **data) -> path`` of the smallest training of a data set."""

    def write(name, root, **data):
        path = tmp_path / f"{name}.yaml"
        sizes = {"trunk": "efficientnet_lite0", "text_width": 32, "decoder_channels": [8, 8, 8]}
        network = {"class_path": "textray.models.mmi_unet.MMIUNet", "init_args": {"config": sizes}}
        values = {
            "seed_everything": 3,
            "trainer": {"max_epochs": 1, "enable_progress_bar": False},
            "data": {"data": name, "root": str(root), "size": [32, 32], "batch_size": 4, "workers": 0} | data,
            "model": {"network": network, "text_encoder": "tiny"},
        }
        path.write_text(json.dumps(values))  # JSON is YAML
        return path

    return write


@pytest.fixture
def qata(tmp_path):
    """Root of a fake with 50 train rows (40 train, 10 val) and 6 test rows."""
    root = tmp_path / "QaTa-COV19-v2"
    train, test = names_of(50, 6)
    write_part(root, "train", train)
    write_part(root, "test", test)
    return root


@pytest.fixture
def films(tmp_path):
    """A fake of other-films: 40 NIH films of 20 patients, 20 of Shenzhen, 10 of Montgomery; lungs for these."""
    root, rows = tmp_path / "other-films", [("file", "source", "label", "lungs")]
    names = [("nih", f"{i // 2:08d}_{i % 2:03d}", ("normal", "pneumonia")[i // 20]) for i in range(40)]
    names += [("shenzhen", f"CHNCXR_{i:04d}_{i % 2}", ("normal", "tuberculosis")[i % 2]) for i in range(20)]
    names += [("montgomery", f"MCUCXR_{i:04d}_{i % 2}", ("normal", "tuberculosis")[i % 2]) for i in range(10)]
    mask = np.zeros((48, 40), bool)
    mask[8:40, 5:16] = mask[6:38, 23:36] = True
    mask[2, 20] = True  # a speck
    for i, (source, stem, label) in enumerate(names):
        save(root / source / f"{stem}.jpg", np.random.default_rng(i).integers(0, 256, (48, 40), dtype=np.uint8))
        lungs = "" if source == "nih" else f"lungs/{stem}.png"
        if lungs:
            save(root / lungs, mask)
        rows.append((f"{source}/{stem}.jpg", source, label, lungs))
    with (root / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root


def real(name):
    """Make a fixture: the folder of the real data set beside the repository."""

    @pytest.fixture
    def folder():
        found = Path(__file__).resolve().parents[3] / "shared" / "data" / name
        if not found.is_dir():
            pytest.skip(f"no ../shared/data/{name} beside the repository")
        return found

    return folder


real_qata, real_monuseg, real_open_i = real("QaTa-COV19-v2"), real("MoNuSeg"), real("open-i")
real_films = real("other-films")
PARTS = ("Train", "Val", "Test")
KAGGLE_TABLES = ("Train_text_MosMedData+ 1.xlsx", "Val_text_MosMedData+ 1.xlsx", "Test_text_MosMedData+.xlsx")


def mosmed_slices():
    """Name, part and caption of 50 slices: 40, 5 and 5, neighbours of one volume in several parts as published."""
    names = [f"Morozov_study_{v:04d}_{z}" for v in range(1, 7) for z in range(20, 24)]
    names += [f"Jun_coronacases_case{v}_{z}" for v in range(1, 5) for z in range(100, 103)]
    names += [f"Jun_radiopaedia_{v}_85902_{v}_case1{v}_{z}" for v in range(1, 4) for z in range(7, 10)]
    names += [f"bjorke_{n}" for n in range(5)]
    return [(n, {8: "Val", 9: "Test"}.get(i % 10, "Train"), (LEFT, RIGHT)[i % 2]) for i, n in enumerate(names)]


def write_slice(image, mask, name, caption):
    """Lesion in the half and at the height that the caption names; sizes, channels and levels as they vary."""
    size = (40, 36) if name.startswith("Jun") else (32, 32)
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, size, dtype=np.uint8)
    levels = np.zeros(size, np.uint8)
    levels[4 : 10 if caption == LEFT else 11, 3:9] = 255
    levels = levels if caption == LEFT else levels[::-1, ::-1]
    if name.startswith("Jun_radiopaedia"):
        pixels, levels = pixels[::-1], levels[::-1]
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if name.startswith("Jun_coronacases"):
        levels = np.stack([levels * 0, levels, levels * 0], axis=-1)
    if name.startswith("bjorke"):
        levels = np.where(levels == 255, np.uint8(255), np.uint8(100))  # a rim below one half
    save(image, pixels)
    save(mask, levels)


def write_sheet(path, rows, header=("Image", "Description")):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *rows])
        return
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [header, *rows]:
        book.active.append(row)
    book.save(path)


@pytest.fixture
def mosmed(tmp_path):
    """``mosmed(layout) -> root`` writes the 50 slices in the layout ``kaggle``, ``lvit`` or ``csv``."""

    def write(layout):
        root = tmp_path / layout
        rows = {part: [] for part in PARTS}
        for name, part, caption in mosmed_slices():
            images, masks, prefix = {
                "kaggle": ("frames", "masks", ""),
                "lvit": (f"{part}_Folder/img", f"{part}_Folder/labelcol", ""),
                "csv": (f"{part}/Images", f"{part}/GTs", "mask_"),
            }[layout]
            write_slice(root / images / f"{name}.png", root / masks / f"{prefix}{name}.png", name, caption)
            rows[part].append((f"{prefix}{name}.png", caption))
        for part, kaggle in zip(PARTS, KAGGLE_TABLES, strict=True):
            table = {"kaggle": kaggle, "lvit": f"{part}_Folder/{part}_text.xlsx", "csv": f"prompt/{part.lower()}.csv"}
            path = root / table[layout]
            path.parent.mkdir(exist_ok=True)
            write_sheet(path, rows[part])
        return root

    return write


NUCLEI = (
    "The nuclei density in the upper left is high.",
    "The nuclei density in the lower right is high.",
    "The nuclei are evenly distributed.",
)


def write_tissue(root, part, names, image_suffix=".png"):
    """Pink pictures with purple nuclei, more of them where the caption says; the tables name the masks."""
    folder, rows = root / f"{part}_Folder", []
    for i, name in enumerate(names):
        rng = np.random.default_rng((len(part), i))
        caption = NUCLEI[i % len(NUCLEI)]
        dense = {"left": (0, 16), "right": (20, 36)}.get(caption.split()[-3], (0, 36))
        mask = np.zeros((40, 36), np.uint8)
        for row, column in zip(rng.integers(0, 38, 12), rng.integers(*dense, 12), strict=True):
            mask[row : row + 3, column : column + 3] = 255
        pixels = np.where(mask[..., None] > 0, (90, 40, 120), (230, 150, 190)) + rng.integers(-20, 20, (40, 36, 3))
        save(folder / "img" / f"{name}{image_suffix}", pixels.astype(np.uint8))
        save(folder / "labelcol" / f"{name}.png", mask)
        rows.append((f"{name}.png", caption))
    write_sheet(folder / f"{part}_text.xlsx", rows)


def tissue_names(count, place):
    return [f"TCGA-{place}-{i:04d}-01Z-00-DX1" for i in range(count)]


@pytest.fixture
def monuseg(tmp_path):
    """Root of a fake with 12 train, 3 val and 3 test pictures, those of test as TIFF like the published ones."""
    root = tmp_path / "MoNuSeg"
    write_tissue(root, "Train", tissue_names(12, "AA"))
    write_tissue(root, "Val", tissue_names(3, "BB"))
    write_tissue(root, "Test", tissue_names(3, "CC"), ".tif")
    return root

"""nnU-Net's raw layout of a data set, and scores of masks that come back."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.errors import DataError, UsageError
from textray.reproduce import Order, reproduction


def order(root, out, name="nnunet-export", **changes):
    return Order(name=name, roots={"qata_cov19": root}, out=out, **changes)


@pytest.fixture
def samples(qata):
    return {part: open_reader("qata_cov19", qata).samples(part) for part in ("fit", "inner", "val")}


@pytest.fixture
def predicted(samples, tmp_path):
    """The masks themselves, of 0 and 1, as nnU-Net writes them."""
    folder = tmp_path / "predicted"
    folder.mkdir()
    for sample in samples["val"]:
        PILImage.fromarray(sample.read_mask().astype(np.uint8)).save(folder / f"{sample.image_id}.png")
    return folder


def pixels(path):
    with PILImage.open(path) as picture:
        return np.asarray(picture)


def test_films_and_cut_are_those_of_the_reader(qata, samples, tmp_path):
    assert reproduction("nnunet-export")(order(qata, tmp_path)) == 0
    raw = tmp_path / "nnUNet_raw/Dataset501_qata_cov19"
    ids = {part: [sample.image_id for sample in found] for part, found in samples.items()}
    facts = json.loads((raw / "dataset.json").read_text())
    assert facts["numTraining"] == len(ids["fit"]) + len(ids["inner"])
    assert (facts["labels"], facts["file_ending"]) == ({"background": 0, "lesion": 1}, ".png")
    folds = json.loads((tmp_path / "nnUNet_preprocessed/Dataset501_qata_cov19/splits_final.json").read_text())
    assert folds == [{"train": ids["fit"], "val": ids["inner"]}]
    trained = {f"{name}_0000.png" for name in (*ids["fit"], *ids["inner"])}
    assert {path.name for path in (raw / "imagesTr").iterdir()} == trained
    assert {path.name for path in (raw / "imagesTs").iterdir()} == {f"{name}_0000.png" for name in ids["val"]}
    for sample in samples["fit"]:
        label = pixels(raw / "labelsTr" / f"{sample.image_id}.png")
        assert np.array_equal(label, sample.read_mask())
        assert np.array_equal(pixels(raw / "imagesTr" / f"{sample.image_id}_0000.png"), pixels(sample.image_path))


@pytest.mark.parametrize("split", ["train", "inner"])
def test_films_to_train_on_are_not_predicted(split, qata, tmp_path):
    with pytest.raises(UsageError, match="does not train on"):
        reproduction("nnunet-export")(order(qata, tmp_path, split=split))


def test_masks_that_come_back_are_scored(qata, samples, predicted, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for sample in samples["val"]:
        PILImage.fromarray(np.zeros_like(sample.read_mask(), np.uint8)).save(wrong / f"{sample.image_id}.png")
    told = []
    models = (f"nnU-Net={predicted}", f"nothing={wrong}")
    assert reproduction("nnunet-score")(order(qata, tmp_path, "nnunet-score", models=models, tell=told.append)) == 0
    values = json.loads((tmp_path / "nnunet-score.json").read_text())
    assert values["data"]["images"] == len(samples["val"])
    for label, dice in (("nnU-Net", 1.0), ("nothing", 0.0)):
        assert values["rows"][label]["dice_pooled"]["value"] == pytest.approx(dice)
        assert values["rows"][label]["dice_per_image"]["value"] == pytest.approx(dice)
    assert [line.split(":")[0] for line in told] == ["nnU-Net", "nothing"]


def test_missing_and_resized_predictions_are_refused(qata, samples, predicted, tmp_path):
    first = predicted / f"{samples['val'][0].image_id}.png"
    PILImage.new("L", (8, 8)).save(first)
    wanted = order(qata, tmp_path, "nnunet-score", models=(f"nnU-Net={predicted}",))
    with pytest.raises(DataError, match="another size"):
        reproduction("nnunet-score")(wanted)
    first.unlink()
    with pytest.raises(DataError, match=f"1 of {len(samples['val'])} films have no prediction"):
        reproduction("nnunet-score")(wanted)
    with pytest.raises(UsageError, match="needs predictions"):
        reproduction("nnunet-score")(order(qata, tmp_path, "nnunet-score"))
    with pytest.raises(UsageError, match="needs one data set"):
        reproduction("nnunet-score")(Order(name="nnunet-score", out=tmp_path))

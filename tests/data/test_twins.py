"""The same picture in two files, whatever its name, compression, brightness and contrast; films of `train` in `val`."""

import numpy as np
import pytest
from PIL import Image

from textray.data.phantom import draw
from textray.data.qata_cov19 import QaTaCOV19
from textray.data.twins import LIKENESS, pattern, same_pictures

TWIN = "sub-S12197_ses-E24904_run-1_bp-chest_vp-ap_cr"


def film(seed, size=(96, 80)):
    return np.rint(draw(seed, size)[0] * 255).astype(np.uint8)


def changed(levels, gain=0.6, offset=40, gamma=0.8):
    return np.rint(offset + gain * 255 * (levels / 255) ** gamma).astype(np.uint8)


def save(root, name, levels, **options):
    Image.fromarray(levels).save(root / name, **options)
    return root / name


def test_brightness_contrast_and_compression_leave_a_film_alike_and_another_film_is_not():
    films = [film(seed) for seed in range(12)]
    patterns = np.array([pattern(levels) for levels in films])
    others = patterns @ patterns.T - np.eye(len(films))
    assert others.max() < LIKENESS - 0.02
    for levels, own in zip(films, patterns, strict=True):
        assert pattern(changed(levels)) @ own > LIKENESS + 0.02
        assert pattern(np.kron(levels, np.ones((3, 3), np.uint8))) @ own > 0.99
        assert pattern(levels[::-1]) @ own < 0.7


def test_an_even_picture_is_like_none():
    assert not pattern(np.full((50, 40), 90, np.uint8)).any()
    assert not pattern(np.zeros((50, 40), np.uint8)).any()


@pytest.mark.parametrize("films", [True, False])
def test_pairs_are_named_once_and_leaks_before_others(tmp_path, films):
    first = film(1)
    pictures = [
        (save(tmp_path, "a.png", first), "train"),
        (save(tmp_path, "b.png", np.repeat(first[..., None], 3, axis=2), compress_level=1), "train"),
        (save(tmp_path, "c.png", film(2)), "train"),
        (save(tmp_path, "d.png", changed(first)), "val"),
        (save(tmp_path, "e.png", film(2)), "test"),
        (tmp_path / "missing.png", "test"),
    ]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = same_pictures([*pictures, (tmp_path / "broken.png", "test")], tmp_path, films=films)
    assert [(p.code, p.path) for p in found] == [
        ("W_SAME_PICTURE", "b.png"), *[("W_PICTURE_LEAK", "d.png")] * films, ("W_PICTURE_LEAK", "e.png"),
    ]  # fmt: skip
    assert found[0].message == "is the same picture as a.png"
    assert found[-1].message == "is in test, and is the same picture as c.png in train"
    assert not films or "the same picture as a.png (likeness 0.9" in found[1].message


def test_a_leak_is_named_before_a_likelier_picture_of_the_same_part(tmp_path):
    pictures = [
        (save(tmp_path, "a.png", film(1)), "train"),
        (save(tmp_path, "b.png", changed(film(1))), "val"),
        (save(tmp_path, "c.png", changed(film(1))), "val"),
    ]
    assert [p.code for p in same_pictures(pictures, tmp_path, films=True)] == ["W_PICTURE_LEAK"] * 2


def rename(root, old, new):
    for path in root.rglob(f"*{old}.png"):
        path.rename(path.with_name(path.name.replace(old, new)))
    table = root / "prompt/train.csv"
    table.write_text(table.read_text().replace(f"{old}.png", f"{new}.png"))


def test_films_of_train_that_are_films_of_val_are_left_out_of_training(qata, caplog):
    for number in range(2):  # both films of the first patient of val
        old = f"sub-S20000_ses-E{number}_run-1_bp-chest_vp-pa_cr"
        rename(qata, old, TWIN if not number else "sub-S12197_ses-E1")
    rename(qata, "covid_2", "covid_967")
    reader = QaTaCOV19(qata)
    ids = {split: [s.image_id for s in reader.samples(split)] for split in ("train", "fit", "inner", "val")}
    assert len(ids["train"]) == 40, "the published list stays as it is"
    assert "covid_967" in ids["train"]
    assert sorted([*ids["fit"], *ids["inner"], "covid_967"]) == sorted(ids["train"])
    assert caplog.text.count("W_PICTURE_LEAK: 1 films of train are films of val too") == 1
    levels = film(3)
    for name, form in (("covid_967", levels), (TWIN, changed(levels))):
        save(qata / "Train Set/Images", f"{name}.png", np.ascontiguousarray(form))
        save(qata / "Train Set/Ground-truths", f"mask_{name}.png", np.uint8(levels > 200) * 255)
    result = reader.check()
    assert result.ok
    (leak,) = result.problems
    assert (leak.code, leak.path) == ("W_PICTURE_LEAK", f"Train Set/Images/{TWIN}.png")
    assert "covid_967.png (likeness 0.9" in leak.message
    assert leak.message.endswith("in train (left out of fit)")


def test_the_same_names_in_another_cut_are_learnt_from(qata):
    rename(qata, "covid_2", "covid_967")
    assert "covid_967" in [s.image_id for s in QaTaCOV19(qata).samples("fit")]


def test_real_films_of_train_in_val(real_qata):
    """The three pairs are alike, and no other film of `val` is like them."""
    reader = QaTaCOV19(real_qata)
    names = ("covid_967", "covid_2077", "covid_3495")
    pictures = [(s.image_path, "train") for s in reader.samples("train") if s.image_id in names]
    pictures += [(s.image_path, "val") for s in reader.samples("val")]
    found = same_pictures(pictures, reader.root, films=True)
    assert [p.code for p in found] == ["W_PICTURE_LEAK"] * 3
    assert all("/sub-S12197_" in p.path for p in found)
    assert not {s.image_id for s in reader.samples("fit")} & set(names)

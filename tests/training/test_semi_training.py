"""Training on images with masks and images without: what is seen, what is kept, what a kill leaves."""

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import nn

pytest.importorskip("lightning")
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from textray.augment import Augment
from textray.data.batches import collate
from textray.data.phantom import draw
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.models.base import Network, Output
from textray.models.baselines.unet import UNet, UNetConfig
from textray.text.zones import parse_caption, sentence
from textray.training.checkpoints import last_checkpoint
from textray.training.pseudo_labels import PseudoLabels
from textray.training.segmentation import SegmentationTask
from textray.training.semi import SemiSupervisedTask

TOKENS = 16
SIZE = (32, 32)
HIDDEN = 7
"""How many of the 12 pictures of `data` have masks that may not be seen; labels of another number are refused."""


@dataclass(frozen=True)
class NoConfig:
    pass


class Shift(Network):
    """Convolutions, moved up or down by the mean of the report's tokens."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=4, text_width=32, most_tokens=TOKENS)
        self.config = NoConfig()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.1))
        self.head, self.read = nn.Conv2d(4, 1, 3, padding=1), nn.Linear(32, 1)

    def forward(self, image, text_features=None, text_mask=None):
        features, mask = self.read_text(image, text_features, text_mask)
        mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return Output(self.head(self.body(image)) + self.read(mean)[..., None, None])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Checkpoint of a training with masks, once for all tests."""
    folder = tmp_path_factory.mktemp("teacher")
    fit(supervised(), folder, augment="light")
    return folder / "last.ckpt"


def supervised(**settings):
    torch.manual_seed(0)
    return SegmentationTask(Shift(), text_encoder="tiny", max_tokens=TOKENS, lr=1e-2, **settings)


def semi(teacher, **settings):
    torch.manual_seed(1)
    settings = {"beta": 0.5, "lr": 1e-2} | settings
    return SemiSupervisedTask(Shift(), text_encoder="tiny", max_tokens=TOKENS, teacher=str(teacher), **settings)


def data(kind=SegmentationData, **settings):
    settings = {"size": SIZE, "batch_size": 4, "workers": 0, "limit": 12, "labelled_fraction": 0.4} | settings
    return kind("phantom", **settings)


def fit(module, out, epochs=1, more=(), batches=None, processes=1, **settings):
    """Train in a folder, going on from what is there; return the trainer."""
    last = ModelCheckpoint(dirpath=out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    batches = batches or data(**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = Trainer(
            max_epochs=epochs, logger=False, callbacks=[*more, last], enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, log_every_n_steps=1, default_root_dir=out, num_sanity_val_steps=0,
            devices=processes, strategy="ddp_spawn" if processes > 1 else "auto",
        )  # fmt: skip
        trainer.ckpt_path = last_checkpoint(out)  # as `textray train` does
        trainer.fit(module, datamodule=batches)
    return trainer


def weights(out):
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


def stored(out, epoch, count):
    labels = PseudoLabels(out / "pseudo_labels", count=count, size=SIZE)
    labels.open(epoch)
    return np.stack([labels.read(row) for row in range(count)])


def predicted(network, task, batch):
    """Probabilities that a network finds in the one picture of a batch."""
    with torch.no_grad():
        return torch.sigmoid(network(batch["image"], *task.encoder(batch["text"])).logits)[0, 0]


class Killed(Exception):  # noqa: N818 -- stands for a signal, which nothing gets to handle
    """Nothing is tidied up after it."""


class Kill(Callback):
    """Stops within the second epoch, or after its labels were put in place and before its checkpoint."""

    def __init__(self, when):
        self.when = when

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if self.when == "within" and trainer.current_epoch == 1 and batch_idx == 1:
            raise Killed

    def on_save_checkpoint(self, trainer, module, checkpoint):
        if self.when == "between" and trainer.current_epoch == 1:
            raise Killed


class Watch(Callback):
    """Keeps every training batch."""

    def __init__(self):
        self.batches, self.logged = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.batches.append(batch)

    def on_save_checkpoint(self, trainer, module, checkpoint):  # the last thing that an epoch does
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.fixture
def teacher_network(teacher):
    """The teacher's network."""
    network = Shift()
    network.load_state_dict({n.removeprefix("network."): v for n, v in weights(teacher.parent).items()})
    return network.eval()


def test_a_killed_training_goes_on_with_the_labels_of_its_checkpoint(teacher, tmp_path):
    settings = {"augment": "strong", "report_dropout": 0.2}
    fit(semi(teacher), tmp_path / "whole", 3, **settings)
    whole = stored(tmp_path / "whole", 3, HIDDEN)
    assert np.abs(whole - stored(tmp_path / "whole", 2, HIDDEN)).max() > 0.01
    for when in ("within", "between"):
        out = tmp_path / when
        with pytest.raises(Killed):
            fit(semi(teacher), out, 3, [Kill(when)], **settings)
        assert torch.load(out / "last.ckpt", weights_only=True)["textray"]["semi_supervised"]["labels"] == 1
        gone_on = semi(tmp_path / "moved.ckpt")  # the teacher is not needed any more
        fit(gone_on, out, 3, **settings)
        np.testing.assert_array_equal(stored(out, 3, HIDDEN), whole)
        for name, value in weights(tmp_path / "whole").items():
            torch.testing.assert_close(weights(out)[name], value, rtol=0, atol=0, msg=name)


def test_the_teacher_gives_the_first_labels_and_the_first_weights(teacher, teacher_network, tmp_path):
    task = fit(semi(teacher, lr=1e-12, lr_final=1e-13, beta=0.0), tmp_path, 1, augment="none").lightning_module
    for name, value in weights(teacher.parent).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(weights(tmp_path)[name], value, rtol=1e-4, atol=1e-6, msg=name)
    fit(semi(teacher, epi=False), tmp_path / "still", 1, augment="strong")  # labels are left as they are
    first, plain = stored(tmp_path / "still", 0, HIDDEN), task.fit_set.plain()
    for index, row in task._rows.items():
        np.testing.assert_allclose(first[row], predicted(teacher_network, task, collate([plain[0, index]])), atol=2e-5)


def test_no_loss_sees_a_mask_that_may_not_be_seen(teacher, tmp_path):
    """With other masks in the images that have none, nothing of the training is another."""

    class Scrambled(SegmentationData):
        def setup(self, stage):
            super().setup(stage)
            fit_set, read = self.sets["fit"], self.sets["fit"].pixels.mask
            fit_set.pixels.mask = lambda index: read(index) if fit_set.labelled[index] else ~read(index)

    watches = Watch(), Watch()
    for watch, kind, name in zip(watches, (SegmentationData, Scrambled), ("straight", "scrambled"), strict=True):
        fit(semi(teacher), tmp_path / name, 2, [watch], batches=data(kind, augment="light"))
    for name, value in weights(tmp_path / "straight").items():
        torch.testing.assert_close(weights(tmp_path / "scrambled")[name], value, rtol=0, atol=0)
    first, second = (watch.logged[-1] for watch in watches)
    assert first["pseudo/dice_truth"] != second["pseudo/dice_truth"]  # the log alone may look
    assert first["train/loss"] == second["train/loss"]
    for batch in watches[0].batches:
        assert 0 < batch["labelled"].sum() < len(batch["labelled"])
        assert batch["mask"][~batch["labelled"]].isnan().all()
        assert not batch["mask"][batch["labelled"]].isnan().any()
    log = watches[0].logged[-1]
    assert {"train/labelled", "train/unlabelled", "train/lv", "pseudo/changed", "pseudo/dice_teacher"} <= set(log)


def test_flips_swap_image_mask_label_and_sentence_together(teacher, tmp_path):
    """A flipped picture is compared with the flipped label, and moves the label of the picture as it is."""
    trainer = fit(semi(teacher, lr=1e-12, lr_final=1e-13), tmp_path, 1, augment="none")
    task, fit_set = trainer.lightning_module, trainer.datamodule.sets["fit"]
    straight = collate([fit_set.plain()[0, index] for index in range(12)])
    fit_set.augment = replace(Augment(), flip_p=1.0)
    flipped = collate([fit_set[0, index] for index in range(12)])
    torch.testing.assert_close(flipped["image"], straight["image"].flip(3))
    seen = flipped["labelled"]
    torch.testing.assert_close(flipped["mask"][seen], straight["mask"][seen].flip(3))
    targets = []
    task.pseudo_loss.forward = lambda logits, target: targets.append(target) or logits.sum() * 0
    task.log_train = lambda *parts, **more: None
    hidden = torch.nonzero(~seen).flatten().tolist()
    looks = []
    task._bank.mask = lambda text: looks.append(text) or np.zeros(SIZE, np.float32)
    logits = torch.randn(len(hidden), 1, *SIZE)
    for batch, found in ((straight, logits), (flipped, logits.flip(3))):
        task.labels.prepare()
        task.labels.begin()
        task._unlabelled(found, batch, hidden)
        task.labels.flush()
        labels = np.stack([task.labels._next[row] for row in range(len(hidden))])
        if batch is straight:
            expected = labels
    np.testing.assert_array_equal(labels, expected)  # the same finding, seen in a mirror, moves the label the same
    torch.testing.assert_close(targets[1], targets[0].flip(3))
    zones = [parse_caption(text).zones for text in looks]
    assert zones[len(hidden) :] == [z.mirror() for z in zones[: len(hidden)]]


def test_a_network_without_words_needs_no_lv_loss(tmp_path):
    torch.manual_seed(0)
    network = {"network": UNet(UNetConfig(width=2)), "text_encoder": None}
    with pytest.raises(UsageError, match="lv_weight 0"):
        SemiSupervisedTask(**network)
    settings = {"batch_size": 6, "augment": "paper"}
    fit(SegmentationTask(**network), tmp_path / "teacher", **settings)
    watch = Watch()
    task = SemiSupervisedTask(
        UNet(UNetConfig(width=2)), text_encoder=None, lv_weight=0.0, target="soft", unlabelled_ramp_epochs=3,
        teacher=str(tmp_path / "teacher" / "last.ckpt"),
    )  # fmt: skip
    fit(task, tmp_path / "student", 2, [watch], **settings)
    assert [log["pseudo/weight"] for log in watch.logged] == pytest.approx([0.25, 0.5])
    assert "train/lv" not in watch.logged[0]


def test_schematic_masks_and_reports_that_are_missing(teacher, tmp_path):
    given, missing = Watch(), Watch()
    fit(semi(teacher, lv_bank="schematic"), tmp_path / "given", 1, [given], augment="none")
    assert 0 < given.logged[0]["train/lv"] < 1
    fit(semi(teacher, lv_bank="schematic"), tmp_path / "missing", 1, [missing], augment="none", report_dropout=1.0)
    assert "train/lv" not in missing.logged[0]


@pytest.fixture
def films(tmp_path):
    """Five pictures whose masks nobody has drawn, and a table with reports of four of them."""
    folder, rows = tmp_path / "films", ["image,text"]
    folder.mkdir()
    for number in range(5):
        pixels, _, zones = draw(1000 + number, (48, 40))
        PILImage.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f'{number},"{sentence(zones)}"' if number else "")
    (tmp_path / "reports.csv").write_text("\n".join(rows))
    return {
        "unlabelled": str(folder),
        "unlabelled_texts": str(tmp_path / "reports.csv"),
        "unlabelled_laterality": "viewer",
        "labelled_fraction": 1.0,
    }


def test_pictures_that_have_no_masks_are_learned_from(teacher, teacher_network, films, tmp_path, caplog):
    watch = Watch()
    trainer = fit(semi(teacher), tmp_path / "run", 2, [watch], augment="light", **films)
    task, count = trainer.lightning_module, len(trainer.datamodule.sets["fit"])
    assert (count, len(task._rows)) == (12 + 5, 5)
    assert np.abs(stored(tmp_path / "run", 2, 5) - stored(tmp_path / "run", 1, 5)).max() > 0
    seen = {name for batch in watch.batches for name in batch["image_id"]}
    assert {f"{number}.png" for number in range(5)} <= seen
    for batch in watch.batches:
        assert batch["mask"].isnan().all((1, 2, 3)).tolist() == (~batch["labelled"]).tolist()
    assert "pseudo/dice_teacher" in watch.logged[0]
    assert "pseudo/dice_truth" not in watch.logged[0]  # nothing is known of it
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["textray"]["data"]
    facts = tuple(kept["unlabelled"][name] for name in ("images", "with_text", "laterality"))
    assert facts == (5, 4, "viewer")
    assert kept["without_text"]["fit"] == 0  # what a teacher says of a film without a report is not learned from
    assert kept["labelled"]["images"] == kept["images"]["fit"] - 5
    assert "W_TEACHER" in caplog.text  # this teacher saw fewer masks
    assert "W_SILENCE: 1 images" in caplog.text  # and a report with each

    fit(semi(teacher, epi=False), tmp_path / "still", 1, augment="strong", **films)
    first, plain = stored(tmp_path / "still", 0, 5), task.fit_set.plain()
    assert plain.unlabelled_without_text == 1
    for index, row in task._rows.items():
        batch = collate([plain[0, index]])
        unknown = batch["image_id"] == ["0.png"]  # zones that nothing tells are no zones to learn
        assert (batch["text"] == [None]) is batch["zones"].isnan().all().item() is unknown
        np.testing.assert_allclose(first[row], predicted(teacher_network, task, batch), atol=2e-5)


def test_pictures_without_masks_beside_hidden_masks(teacher, films, tmp_path):
    """The truth that is looked at is that of the hidden masks; other pictures in the folder are another training."""
    settings = films | {"labelled_fraction": 0.4}
    watch = Watch()
    trainer = fit(semi(teacher), tmp_path / "run", 1, [watch], **settings)
    assert len(trainer.lightning_module._rows) == HIDDEN + 5
    fit_set = trainer.datamodule.sets["fit"]
    labels = stored(tmp_path / "run", 1, HIDDEN + 5) >= 0.5
    drawn = [(labels[row], fit_set.truth(index)) for index, row in trainer.lightning_module._rows.items()]
    common = sum((label & mask).sum() for label, mask in drawn if mask is not None)
    both = sum(label.sum() + mask.sum() for label, mask in drawn if mask is not None)
    assert sum(mask is None for _, mask in drawn) == 5
    assert watch.logged[0]["pseudo/dice_truth"] == pytest.approx(2 * common / both if both else 1.0)
    for changed in ({"unlabelled_laterality": "patient"}, {"unlabelled": None, "unlabelled_texts": None}):
        with pytest.raises(UsageError, match=r"other data or settings.*--fresh"):
            fit(semi(teacher), tmp_path / "run", 2, **(settings | changed))
    (Path(films["unlabelled"]) / "4.png").rename(tmp_path / "4.png")
    with pytest.raises(UsageError, match=r"data\.images\.fit"):
        fit(semi(teacher), tmp_path / "run", 2, **settings)


def test_a_second_data_set_beside_is_refused(teacher):
    """Other pictures come in place of its films, and pseudo-labels are of one picture each."""
    module = semi(teacher)
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(beside="chest_films"))
    with pytest.raises(UsageError, match=r"images of one data set.*data\.beside chest_films"):
        module.setup("fit")


def test_who_cannot_learn_from_pictures_without_masks(teacher, films, tmp_path):
    needy = semi(teacher)
    needy.network.needs_text = True
    for number, (task, settings, message) in enumerate((
        (supervised(), films, r"does not learn from pictures without masks.*semi_supervised"),
        (semi(teacher), {"unlabelled_texts": films["unlabelled_texts"]}, "reports without pictures"),
        (semi(teacher), films | {"labels": "clusters"}, "no captions to cluster"),
        (needy, films, r"needs a report with every image.*1 images"),
    )):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            fit(task, tmp_path / str(number), **settings)


class Constant(Network):
    """The same probability everywhere, whatever it is shown."""

    def __init__(self, level=0.0):
        super().__init__(in_channels=3, size_multiple=4, text_width=None)
        self.config = NoConfig()
        self.level = nn.Parameter(torch.tensor(float(level)))

    def forward(self, image, text_features=None, text_mask=None):
        return Output(self.level.expand(image.shape[0], 1, *image.shape[2:]))


@pytest.mark.slow
def test_two_processes_share_the_labels(tmp_path, monkeypatch):
    """Each process moves the labels of its own images, once in an epoch; none undoes what the other wrote."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds this file
    words = {"text_encoder": None, "lr": 1e-9, "lr_final": 1e-10}
    settings = {"augment": "none", "batch_size": 2}
    fit(SegmentationTask(Constant(-2.0), **words), tmp_path / "teacher", **settings)
    teacher, out = str(tmp_path / "teacher" / "last.ckpt"), tmp_path / "student"
    first, found = (1 / (1 + np.exp(-level)) for level in (-2.0, 1.5))
    for epoch in (1, 2):  # the second goes on from the first one's checkpoint
        task = SemiSupervisedTask(Constant(1.5), lv_weight=0.0, beta=0.6, teacher=teacher, initial=None, **words)
        trainer = fit(task, out, epoch, processes=2, **settings)
        assert trainer.world_size == 2
        expected = found + 0.6**epoch * (first - found)
        np.testing.assert_allclose(stored(out, epoch, HIDDEN), expected, atol=5e-5)
        assert torch.load(out / "last.ckpt", weights_only=True)["textray"]["semi_supervised"]["labels"] == epoch


def test_what_cannot_be_trained_is_refused(teacher, tmp_path, caplog):
    unknown = data()
    unknown.row = replace(unknown.row, laterality="unknown")
    nobody = SemiSupervisedTask(Shift(), text_encoder="tiny", max_tokens=TOKENS)
    for task, settings, message in (
        (semi(teacher), {"labelled_fraction": 1.0}, "every image has a mask"),
        (nobody, {}, "no teacher"),
        (semi(tmp_path / "moved.ckpt"), {}, r"no checkpoint.*moved"),
        (semi(teacher), {"normalise": "unit"}, r"otherwise.*preprocess.*zscore"),
        (semi(teacher, lv_bank="schematic"), {"batches": unknown}, "whose left and right"),
    ):
        with pytest.raises(UsageError, match=message):
            fit(task, tmp_path / "never", **settings)
    for wrong in ({"beta": 1.0}, {"unlabelled_weight": 0.0}, {"lv_weight": -0.1}):
        with pytest.raises(UsageError, match="out of range"):
            semi(teacher, **wrong)
    with pytest.raises(UsageError, match="another task"):
        fit(semi(teacher), teacher.parent, 2)
    fit(semi(teacher), tmp_path / "g")
    with pytest.raises(UsageError, match=r"Got data\.fraction_seed 1;.*Expected data\.fraction_seed 0"):
        fit(semi(teacher), tmp_path / "g", 2, fraction_seed=1)
    with caplog.at_level(logging.INFO):
        fit(semi(teacher, beta=0.99, lr=1e-4), tmp_path / "e", 1, labelled_fraction=0.2)
    assert "W_TEACHER" in caplog.text
    assert "0.99 of the teacher's labels is left" in caplog.text

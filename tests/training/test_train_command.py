"""`textray train` on the phantom: from a YAML to a checkpoint, stopped, resumed, exported and scored."""

import json
import os
import pickle
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image as PILImage

torch = pytest.importorskip("torch")

from filelock import FileLock  # noqa: E402
from lightning.pytorch.callbacks import Timer  # noqa: E402

from textray.training.checkpoints import AtomicCheckpointIO, last_checkpoint, run_files  # noqa: E402
from textray.training.cli import read_order  # noqa: E402

DATA = """\
seed_everything: 3
trainer: {enable_progress_bar: false}
data:
  data: phantom
  size: [32, 64]
  normalise: percentile
  augment: light
  batch_size: 4
  limit: 8
  workers: 1
  report_dropout: 0.5
"""
RECIPE = f"""\
{DATA}
model:
  network:
    class_path: textray.models.mmi_unet.MMIUNet
    init_args: {{config: {{trunk: efficientnet_lite0, text_width: 32, decoder_channels: [8, 8, 8]}}}}
  text_encoder: tiny
  lr: 1.0e-3
"""
UNET = f"""\
{DATA}
model:
  network: {{class_path: textray.models.baselines.unet.UNet, init_args: {{config: {{width: 4}}}}}}
  text_encoder: null
  lr: 1.0e-3
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def weights(out, name="last"):
    return torch.load(Path(out) / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def curve(out):
    """Training loss by epoch over all parts of a run."""
    losses = {}
    for path in sorted(Path(out).glob("log/version_*/metrics.csv")):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        at = {name: i for i, name in enumerate(rows[0] if rows else [])}  # empty where the kill came within its writing
        if "train/loss" in at:  # not where the kill came within the first epoch
            losses |= {int(r[at["epoch"]]): float(r[at["train/loss"]]) for r in rows[1:] if r[at["train/loss"]]}
    return losses


def compare(whole, killed, done):
    """Assert that a training which was killed after ``done`` epochs has come to the same as one in one piece."""
    straight, resumed = weights(whole), weights(killed)
    assert straight.keys() == resumed.keys()
    for name, value in straight.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-4, atol=1e-5, msg=name)
    losses, continued = curve(whole), curve(killed)
    assert set(losses) == {0, 1, 2}
    assert set(continued) >= set(range(done, 3))
    assert continued == pytest.approx({epoch: losses[epoch] for epoch in continued}, rel=1e-4)
    assert not list(killed.rglob(".textray-*"))


class Killed(BaseException):
    """What no handler of errors catches, as a kill."""


@pytest.fixture
def train_here(train, recipe, tmp_path, monkeypatch):
    """Train in this process: ``train_here(out, epochs, *more) -> CliResult``."""
    monkeypatch.chdir(tmp_path)
    return lambda out, epochs, *more: train("--config", recipe, "--out", out, f"--trainer.max_epochs={epochs}", *more)


@pytest.mark.filterwarnings("ignore")  # a training in this process says what a user sees on the standard error
def test_from_a_recipe_to_a_mask(train_here, recipe, cli, film, tmp_path, monkeypatch):
    """Train, be cut off, go on, export, score, export with the scores, segment: all of it in this process."""

    def die(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise Killed

    recipe.write_text(UNET)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_here(whole, 3).code == 0
    timer = "--trainer.callbacks+=lightning.pytorch.callbacks.Timer", "--trainer.callbacks.interval=step"
    with monkeypatch.context() as patch:
        patch.setattr(Timer, "on_train_epoch_end", die)
        with pytest.raises(Killed):
            train_here(killed, 3, *timer)
    assert torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["textray"]["epoch"] == 1
    assert train_here(killed, 3).code == 0
    compare(whole, killed, 1)
    best, bundle = killed / "checkpoints" / "best.ckpt", tmp_path / "bundle"
    assert cli("export", best, "--out", bundle).code == 0
    words = ("--data", "phantom", "--split", "val", "--model", bundle, "--out", tmp_path / "scores")
    assert cli("evaluate", *words).code == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert (summary["size"], list(summary["modes"])) == ([32, 64], ["none"])
    assert 0 <= summary["modes"]["none"]["dice_pooled"]["value"] <= 1
    for name, content in (("none.json", None), ("other.json", "{}"), ("damaged.json", "{")):
        if content is not None:
            (tmp_path / name).write_text(content)
        refused = cli("export", best, "--out", bundle, "--scores", tmp_path / name)
        assert (refused.code, "error E_USAGE: scores cannot be read" in refused.err) == (2, True), refused.err
    assert cli("export", best, "--out", bundle, "--scores", tmp_path / "scores" / "summary.json").code == 0
    assert "dice_pooled" in (bundle / "README.md").read_text()
    film(tmp_path / "chest.png", shape=(90, 70))
    assert cli("segment", tmp_path / "chest.png", "--model", bundle, "--out", tmp_path / "out").code == 0
    with PILImage.open(tmp_path / "out" / "chest.mask.png") as mask:
        assert mask.size == (70, 90)
    facts = json.loads((killed / "run.json").read_text())
    assert (facts["seed"], facts["resumed"]) == (3, True)
    assert facts["versions"]["torch"] == version("torch")
    assert (killed / "log" / "version_0" / "config.yaml").is_file()


@pytest.mark.filterwarnings("ignore")
def test_what_a_training_can_start_from(train_here, recipe, tmp_path):
    """A second stage starts from the first one's weights, with a part that it lacks; other networks are refused."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert train_here(first, 1).code == 0
    recipe.write_text(RECIPE.replace("[8, 8, 8]", "[8, 8, 8], zone_head: true"))
    start_at = f"--model.initial={first / 'checkpoints' / 'best.ckpt'}"
    assert train_here(second, 1, start_at, "--model.zone_weight=0.2", "--model.lr=1.0e-9").code == 0
    before, after = weights(first, "best"), weights(second)
    assert set(after) - set(before) == {"network.zone_head.weight", "network.zone_head.bias"}
    for name in ("network.no_report", "network.head.read.weight", "network.decoder.0.upsample.weight"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6)
    recipe.write_text(RECIPE)
    refused = train_here(tmp_path / "third", 1, f"--model.initial={second / 'checkpoints' / 'last.ckpt'}")
    assert refused.code == 2
    assert "zone_head" in refused.err
    recipe.write_text(RECIPE.replace("[8, 8, 8]", "[16, 8, 8]"))
    refused = train_here(first, 4)
    assert refused.code == 2
    assert "another network" in refused.err
    assert "--fresh" in refused.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--config mmi_unet_qatta", "mmi_unet_qata"),
        ("", "--config"),
        ("--config mmi_unet_lite_224 --data.root . --model.initial=x.ckpt", "comes after the one that it is for"),
    ],
)
def test_words_that_make_no_training_are_refused(cli, words, says):
    found = cli("train", *words.split())
    assert found.code == 2
    assert says in found.err


def test_a_recipe_that_holds_only_what_differs_needs_the_one_before_it(cli, tmp_path):
    more = tmp_path / "more.yaml"
    more.write_text("trainer: {max_epochs: 1}")
    found = cli("train", "--config", more)
    assert found.code == 2
    assert "names no network" in found.err
    own = read_order(["--config", str(more), "--model.network=textray.models.baselines.unet.UNet"])
    assert own.recipes == (str(more),)
    assert read_order(["--config", "mmi_unet_lite", "--config", str(more)]).out.name == "more"


@pytest.mark.filterwarnings("ignore")
def test_d13_a_training_resumes_only_as_it_began(train_here, recipe, tmp_path):
    """Other films, seeds and sizes are refused and named; the facts of the run and its checkpoint stay."""
    recipe.write_text(UNET)
    run = tmp_path / "run"
    assert train_here(run, 1).code == 0
    facts = (run / "run.json").read_text()
    for words, named in (
        ("--seed_everything=4", "data.seed 4. Expected data.seed 3"),
        ("--data.limit=7", "data.ids_sha256.fit"),
        ("--data.size=[64,64]", "data.preprocess.size [64, 64]. Expected data.preprocess.size [32, 64]"),
        ("--data.batch_size=2", "data.batch_size 2"),
        ("--data.augment=none", 'data.augment "none"'),
    ):
        refused = train_here(run, 2, words)
        assert refused.code == 2
        assert named in refused.err
        assert "--fresh" in refused.err
        assert (run / "run.json").read_text() == facts
    assert train_here(run, 2).code == 0, "more epochs, or another rate, are the same training"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "words",
    ["--trainer.accelerator=gpu", "--trainer.accelerator=nope", "--trainer.devices=0", "--trainer.strategy=nope"],
)
def test_e07_a_machine_that_lacks_what_a_training_asks_for(train_here, recipe, tmp_path, words):
    recipe.write_text(UNET)
    refused = train_here(tmp_path / "run", 1, words)
    assert (refused.code, "E_USAGE" in refused.err, "on this machine" in refused.err) == (2, True, True), refused.err


@pytest.mark.filterwarnings("ignore")
def test_e11_files_that_are_no_start(train_here, recipe, tmp_path):
    """Foreign and damaged files are refused by name; nothing of them is quoted, nothing in them runs."""
    recipe.write_text(UNET)
    whole = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"network.x": torch.zeros(3)}, "textray": {}}, whole)
    kinds = {
        "empty": b"", "page": b"<!DOCTYPE html>", "cut": whole.read_bytes()[:-60],
        "pickle": pickle.dumps({"Planted": 1}), "code": pickle.dumps(Killed), "object": b"PK\x03\x04" + b"0" * 80,
    }  # fmt: skip
    for name, content in kinds.items():
        (tmp_path / f"{name}.ckpt").write_bytes(content)
    for name, value in {
        "list": [torch.zeros(3)], "plain": {"a.weight": torch.zeros(3)},
        "words": {"state_dict": {"network.x": "Planted"}},
        "other": {"state_dict": {"model.x": torch.zeros(3)}}, "facts": {"state_dict": {}, "textray": [1]},
    }.items():  # fmt: skip
        torch.save(value, tmp_path / f"{name}.ckpt")
        kinds[name] = b""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_bytes(b"no tensors")
    for start in [*(f"{name}.ckpt" for name in kinds), "folder"]:
        refused = train_here(tmp_path / "run", 1, f"--model.initial={tmp_path / start}")
        assert (refused.code, "E_USAGE" in refused.err) == (2, True), (start, refused.err)
        assert start in refused.err
        assert "Planted" not in refused.err
        assert "weights_only" not in refused.err


@pytest.mark.filterwarnings("ignore")
def test_e06_faults_of_the_machine_end_a_training_with_their_names(train_here, recipe, tmp_path, monkeypatch):
    """A full disk, a full memory and a killed worker; what is complete stays, and the same command goes on."""
    recipe.write_text(UNET.replace("workers: 1", "workers: 0"))

    def end(error):
        def step(self, *args):
            raise error

        return step

    for error, code in (
        (OSError(28, "No space left on device"), "E_DISK"),
        (MemoryError(), "E_MEMORY"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "E_MEMORY"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "E_WORKER"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "E_WORKER"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("textray.training.segmentation.SegmentationTask.training_step", end(error))
            ended = train_here(tmp_path / "run", 1)
        assert (ended.code, f"error {code}: " in ended.err) == (1, True), ended.err
        assert "the same command goes on" in ended.err
    refused = train_here(tmp_path / "run", 1, "--checkpoint.monitor=inner/nothing")
    assert (refused.code, "inner/nothing" in refused.err) == (2, True), refused.err


@pytest.mark.filterwarnings("ignore")
def test_e08_a_folder_with_a_training_or_a_summary_of_something_else_is_left_alone(train_here, recipe, tmp_path):
    recipe.write_text(UNET)
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".lock"):
        refused = train_here(run, 1)
    assert refused.code == 2
    assert f"error E_OUTPUT: another training is at work in {run}. Wait until it ends" in refused.err
    for content in ('{"schema": "textray.run/1"}', "mine"):
        (run / "run.json").write_text(content)
        refused = train_here(run, 1)
        assert refused.code == 2
        assert f"error E_OUTPUT: {run / 'run.json'} is of no training, so it is not overwritten" in refused.err
        assert (run / "run.json").read_text() == content
    assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == ["run.json"]


@pytest.mark.filterwarnings("ignore")
def test_e17_a_fresh_training_leaves_checkpoints_with_the_facts_of_their_own(train_here, recipe, tmp_path):
    recipe.write_text(UNET)
    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints"
    assert train_here(run, 1).code == 0
    assert train_here(run, 1, "--fresh", "--model.lr=1.0e-4").code == 0
    for path in (run / "checkpoints-1" / "best.ckpt", folder / "best.ckpt"):
        arguments = json.loads(next(place for place in run_files(path) if place.exists()).read_text())["arguments"]
        assert ("--model.lr=1.0e-4" in arguments) == (path.parent == folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused = train_here(run, 2)
    assert refused.code == 2
    assert f"error E_USAGE: no checkpoint in {folder} can be read" in refused.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert train_here(run, 1, "--fresh").code == 0
    assert (run / "checkpoints-2" / "run.json").is_file()


def test_a_text_encoder_of_another_width_is_refused(recipe, tmp_path, cli):
    recipe.write_text(RECIPE.replace("text_width: 32", "text_width: 48"))
    result = cli("train", "--config", str(recipe), "--out", str(tmp_path / "run"))
    assert result.code == 2
    assert "width 32" in result.err
    assert not (tmp_path / "run").exists()


def test_e03_last_checkpoint_passes_over_a_half_file(tmp_path, caplog):
    whole, half = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"network.weight": torch.zeros(3)}}, whole)
    half.write_bytes(whole.read_bytes()[:-40])
    os.utime(whole, (1, 1))
    assert last_checkpoint(tmp_path) == whole
    assert "W_CHECKPOINT" in caplog.text
    assert last_checkpoint(tmp_path / "nothing") is None


def test_e01_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_e11_export_refuses_a_pickle_with_code(tmp_path, cli):
    class Loud:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(Loud()))
    result = cli("export", str(path), "--out", str(tmp_path / "bundle"))
    assert result.code == 2
    assert "checkpoint" in result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.ckpt"]

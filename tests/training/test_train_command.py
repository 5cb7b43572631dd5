"""`textray train` on the phantom: from a YAML to a checkpoint, stopped, resumed, exported and scored."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from textray.training.checkpoints import AtomicCheckpointIO, last_checkpoint  # noqa: E402
from textray.training.cli import read_order  # noqa: E402

RECIPE = """\
seed_everything: 3
trainer:
  enable_progress_bar: false
data:
  data: phantom
  size: [32, 64]
  normalise: percentile
  augment: light
  batch_size: 4
  limit: 8
  workers: 0
  report_dropout: 0.5
  report_partial: 0.2
model:
  network:
    class_path: textray.models.mmi_unet.MMIUNet
    init_args:
      config:
        trunk: efficientnet_lite0
        text_width: 32
        decoder_channels: [8, 8, 8]
  text_encoder: tiny
  lr: 1.0e-3
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def start(recipe, out, epochs, *more):
    """Command that trains in a process of its own, as a user's shell would."""
    words = ["train", "--config", str(recipe), "--out", str(out), f"--trainer.max_epochs={epochs}", *more]
    code = f"import sys; from textray.cli import main; sys.argv = ['textray', *{words!r}]; main()"
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=recipe.parent,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(recipe, out, epochs, *more):
    run = start(recipe, out, epochs, *more)
    words, _ = run.communicate(timeout=300)
    return run.returncode, words


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


def kill_and_go_on(recipe, tmp_path):
    """Train without a break, and again with a kill on the way; return the folder of the latter, once both are equal."""
    code, words = train(recipe, tmp_path / "whole", 3)
    assert code == 0, words
    killed = tmp_path / "killed"
    run = start(recipe, killed, 3)
    deadline = time.monotonic() + 240
    while not (killed / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    done = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["textray"]["epoch"]
    assert done < 3, "the training was over before it could be killed"
    code, words = train(recipe, killed, 3, "--trainer.logger=false")  # the CSV log is written all the same
    assert code == 0, words
    assert "Resuming from" in words
    whole, resumed = weights(tmp_path / "whole"), weights(killed)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-4, atol=1e-5, msg=name)
    straight, continued = curve(tmp_path / "whole"), curve(killed)
    assert set(straight) == {0, 1, 2}
    assert set(continued) >= set(range(done, 3))
    assert continued == pytest.approx({epoch: straight[epoch] for epoch in continued}, rel=1e-4)
    assert not list(killed.rglob("*.part"))
    return killed


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_happened(recipe, tmp_path):
    killed = kill_and_go_on(recipe, tmp_path)

    # The same run, exported and scored through the commands.
    from textray.evaluate import evaluate
    from textray.export import export

    bundle = export(killed / "checkpoints" / "best.ckpt", tmp_path / "bundle")
    assert bundle.preprocess.size == (32, 64)
    summary = evaluate(
        data="phantom",
        root=None,
        split="val",
        text_modes=["oracle", "none"],
        out=tmp_path / "scores",
        model=bundle.folder,
    )
    assert 0 <= summary["modes"]["oracle"]["dice_pooled"]["value"] <= 1
    card = export(
        killed / "checkpoints" / "best.ckpt", tmp_path / "bundle", scores=[tmp_path / "scores" / "summary.json"]
    )
    assert "dice_pooled" in (card.folder / "README.md").read_text()
    facts = json.loads((killed / "run.json").read_text())
    assert facts["seed"] == 3
    assert facts["versions"]["torch"] == version("torch")
    assert (killed / "log" / "version_0" / "config.yaml").is_file()

    # A second stage starts from the first one's weights, with a part that it lacks.
    second = tmp_path / "second.yaml"
    second.write_text(RECIPE.replace("[8, 8, 8]", "[8, 8, 8]\n        zone_head: true"))
    start_at = f"--model.initial={killed / 'checkpoints' / 'best.ckpt'}"
    code, words = train(second, tmp_path / "second", 1, start_at, "--model.zone_weight=0.2", "--model.lr=1.0e-9")
    assert code == 0, words
    before, after = weights(killed, "best"), weights(tmp_path / "second")
    assert set(after) - set(before) == {"network.zone_head.weight", "network.zone_head.bias"}
    for name in ("network.no_report", "network.head.read.weight", "network.decoder.0.upsample.weight"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6)
    code, words = train(recipe, tmp_path / "third", 1, f"--model.initial={tmp_path / 'second/checkpoints/last.ckpt'}")
    assert code == 2, words
    assert "zone_head" in words

    # Another network cannot go on from these checkpoints, and says so.
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace("[8, 8, 8]", "[16, 8, 8]"))
    code, words = train(other, killed, 4)
    assert code == 2, words
    assert "another network" in words
    assert "--fresh" in words


GUIDED = (
    RECIPE[: RECIPE.index("model:")].replace("light", "sgseg")
    + """\
model:
  network:
    class_path: textray.models.sgseg.SGSegSimple
    init_args:
      config:
        locator:
          trunk: efficientnet_lite0
        guide_decoder: null
        mmi_unet:
          trunk: efficientnet_lite0
          text_width: 32
          decoder_channels: [8, 8, 8]
        zone_tokens: true
  text_encoder: tiny
  lr: 1.0e-3
  zone_weight: 1.0
  self_guided: 0.5
"""
)
"""A network that writes its own reports, which it sees in training too."""


@pytest.mark.slow
def test_so_does_one_of_a_network_that_writes_its_own_reports(recipe, tmp_path):
    recipe.write_text(GUIDED)
    kill_and_go_on(recipe, tmp_path)


SEMI = (
    RECIPE.replace("report_dropout", "labelled_fraction: 0.5\n  report_dropout").replace("light", "strong")
    + """\
  teacher: teacher/checkpoints/last.ckpt
  beta: 0.5
task: semi_supervised
"""
)
"""A network that learns from images without masks too."""


@pytest.mark.slow
def test_so_does_one_with_pseudo_labels(recipe, tmp_path):
    code, words = train(recipe, tmp_path / "teacher", 1, "--data.labelled_fraction=0.5")
    assert code == 0, words
    recipe.write_text(SEMI)
    killed = kill_and_go_on(recipe, tmp_path)
    (straight,) = (tmp_path / "whole" / "pseudo_labels").glob("labels-0003.u16")
    (resumed,) = (killed / "pseudo_labels").glob("labels-0003.u16")
    first, second = (np.fromfile(path, "<u2").astype(float) for path in (straight, resumed))
    assert np.abs(first - second).max() < 10  # of 65535

    from textray.export import export

    assert export(killed / "checkpoints" / "best.ckpt", tmp_path / "bundle").preprocess.size == (32, 64)


def test_unknown_recipe_names_the_nearest(cli):
    result = cli("train", "--config", "mmi_unet_qatta")
    assert result.code == 2
    assert "mmi_unet_qata" in result.err


def test_training_needs_a_configuration(cli):
    result = cli("train")
    assert result.code == 2
    assert "--config" in result.err


def test_a_recipe_that_holds_only_what_differs_needs_the_one_before_it(cli, tmp_path):
    found = cli("train", "--config", "mmi_unet_lite_224", "--data.root", tmp_path, "--model.initial=x.ckpt")
    assert found.code == 2
    assert "names no network" in found.err
    assert "comes after the one that it is for" in found.err
    more = tmp_path / "more.yaml"
    more.write_text("trainer: {max_epochs: 1}")
    assert "names no network" in cli("train", "--config", more).err
    own = read_order(["--config", str(more), "--model.network=textray.models.baselines.unet.UNet"])
    assert own.recipes == (str(more),)
    assert read_order(["--config", "mmi_unet_lite", "--config", str(more)]).out.name == "more"


def test_a_text_encoder_of_another_width_is_refused(recipe, tmp_path, cli):
    recipe.write_text(RECIPE.replace("text_width: 32", "text_width: 48"))
    result = cli("train", "--config", str(recipe), "--out", str(tmp_path / "run"))
    assert result.code == 2
    assert "width 32" in result.err
    assert not (tmp_path / "run").exists()


def test_last_checkpoint_passes_over_a_half_file(tmp_path, caplog):
    whole, half = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1, "weights": torch.zeros(3)}, whole)
    half.write_bytes(whole.read_bytes()[:-40])
    os.utime(whole, (1, 1))
    assert last_checkpoint(tmp_path) == whole
    assert "W_CHECKPOINT" in caplog.text
    assert last_checkpoint(tmp_path / "nothing") is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_export_refuses_a_pickle_with_code(tmp_path, cli):
    import pickle

    class Loud:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(Loud()))
    result = cli("export", str(path), "--out", str(tmp_path / "bundle"))
    assert result.code == 2
    assert "checkpoint" in result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.ckpt"]


def test_export_fails_where_the_graph_disagrees(tmp_path, monkeypatch, recipe):
    from textray import export as module
    from textray.errors import BundleError, UsageError
    from textray.models.base import Network
    from textray.models.baselines.unet import UNet, UNetConfig
    from textray.preprocess import Preprocess

    facts = {
        "version": "0", "network": "unet", "form": "paper", "config": {"in_channels": 3, "width": 4},
        "text_encoder": None, "max_tokens": 24,
        "data": {
            "name": "phantom", "preprocess": Preprocess(size=(32, 32)).to_dict(), "images": {}, "augment": "none",
            "report_dropout": 0.0, "report_partial": 0.0, "seed": 0,
        },
        "epoch": 1, "max_epochs": 1,
    }  # fmt: skip
    network = UNet(UNetConfig(width=4))
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    path = tmp_path / "unet.ckpt"
    torch.save({"textray": facts, "state_dict": state}, path)
    assert module.export(path, tmp_path / "good").text_encoder is None
    without = tmp_path / "old.ckpt"  # of a version that did not know forms
    torch.save({"textray": {k: v for k, v in facts.items() if k != "form"}, "state_dict": state}, without)
    with pytest.raises(UsageError, match=r"old\.ckpt is not a readable checkpoint of textray train"):
        module.export(without, tmp_path / "good")

    store = module.store_weights

    def other(network: Network, folder: Path) -> None:
        with torch.no_grad():
            network.head.bias += 3.0
        store(network, folder)
        with torch.no_grad():
            network.head.bias -= 3.0

    monkeypatch.setattr(module, "store_weights", other)
    with pytest.raises(BundleError, match="disagree"):
        module.export(path, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    assert np.isfinite(torch.cat([v.flatten() for v in state.values() if v.is_floating_point()]).numpy()).all()

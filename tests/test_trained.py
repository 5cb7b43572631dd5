"""Checkpoints read back: one, and the mean of several stages of a training."""

import copy
import json
from dataclasses import asdict

import pytest

torch = pytest.importorskip("torch")

from textray import registry  # noqa: E402
from textray.errors import UsageError  # noqa: E402
from textray.models.baselines.unet import UNet, UNetConfig  # noqa: E402
from textray.models.build import build  # noqa: E402
from textray.training.checkpoints import facts_of, halved, read_checkpoint, read_network  # noqa: E402

FACTS = {
    "version": "0.1.0", "network": "unet", "form": "paper", "config": {"in_channels": 1, "width": 4},
    "text_encoder": None, "max_tokens": 24, "epoch": 3, "max_epochs": 4,
    "data": {"name": "phantom", "preprocess": {"size": (32, 32), "normalise": "unit", "channels": 1}},
}  # fmt: skip


def stage(path, seed, **facts):
    torch.manual_seed(seed)
    network = UNet(UNetConfig(in_channels=1, width=4))
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor))
        else:
            tensor.fill_(seed)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"textray": {**copy.deepcopy(FACTS), **facts}, "state_dict": {**state, "other": torch.ones(1)}}, path)
    return path, network.state_dict()


def test_one_checkpoint_is_its_network_rounded_to_half_precision(tmp_path):
    path, state = stage(tmp_path / "a.ckpt", 1)
    facts, network = read_checkpoint(path)
    assert not network.training
    assert "averaged" not in facts
    for name, value in network.state_dict().items():
        rounded = state[name].half().float() if state[name].ndim > 1 else state[name]
        assert torch.equal(value, rounded), name


def test_several_give_the_mean_of_weights_and_of_statistics_and_say_so(tmp_path):
    states = [stage(tmp_path / f"{n}.ckpt", n, epoch=n) for n in (1, 2)]
    listed = {"name": "phantom", "preprocess": {"size": [32, 32], "normalise": "unit", "channels": 1}}
    states.append(stage(tmp_path / "3.ckpt", 3, epoch=3, data=listed))  # a list is the same size as a pair
    facts, network = read_checkpoint(*(path for path, _ in states))
    assert facts["epoch"] == 1
    assert [other["epoch"] for other in facts["averaged"]] == [2, 3]
    statistics = 0
    for name, value in network.state_dict().items():
        ours = [state[name] for _, state in states]
        if not value.is_floating_point():
            assert torch.equal(value, ours[0])  # a count of batches means nothing in a mean
            continue
        mean = sum(tensor.double() for tensor in ours) / 3
        torch.testing.assert_close(value.double(), mean, atol=5e-4 if value.ndim > 1 else 1e-7, rtol=0)
        statistics += name.endswith("running_var")
    assert statistics
    assert all(v.dtype == torch.float16 for v in halved(network).values() if v.ndim > 1)


def test_a_stage_of_before_and_one_of_today_are_averaged(tmp_path):
    """Fields that configs no longer have, and new ones that an older checkpoint lacks, are no difference."""
    row = registry.model("mmi_unet").form("paper")
    sizes = {"trunk": "efficientnet_lite0", "text_width": 32, "decoder_channels": [8, 8, 8]}
    network = build(row, sizes)
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, config in (
        ("old", {**sizes, "eca_kernel": None}), ("new", asdict(network.config)), ("other", {**sizes, "zone_head": True})
    ):  # fmt: skip
        torch.save(
            {"textray": {**FACTS, "network": "mmi_unet", "config": config}, "state_dict": state}, tmp_path / name
        )
    for pair in (("old", "new"), ("new", "old")):
        _, mean = read_checkpoint(*(tmp_path / name for name in pair))
        assert mean.config == network.config
    with pytest.raises(UsageError, match="their config differ"):
        read_checkpoint(tmp_path / "old", tmp_path / "other")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"recipe": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_run_file_that_is_damaged_or_anothers_is_no_fault_of_a_checkpoint(tmp_path, content, caplog):
    (tmp_path / "checkpoints").mkdir()
    path, _ = stage(tmp_path / "checkpoints" / "a.ckpt", 1)
    (tmp_path / "run.json").write_bytes(content)
    facts, _ = read_checkpoint(path)
    assert (facts["recipe"], facts["git"], facts["started"]) == (None, None, False)
    assert "W_RUN_FILE" in caplog.text


def test_stages_that_mean_something_else_are_refused(tmp_path):
    first, _ = stage(tmp_path / "a.ckpt", 1)
    sizes = {"name": "phantom", "preprocess": {"size": (64, 64), "normalise": "unit", "channels": 1}}
    patients = {"data": {**FACTS["data"], "excluded_patients": {"sha256": "0", "count": 1}}}
    for facts, word in (
        ({"data": sizes}, "preprocess"),
        ({"max_tokens": 8}, "max_tokens"),
        ({"form": "x"}, "form"),
        (patients, "excluded_patients"),
    ):
        other, _ = stage(tmp_path / "b.ckpt", 2, **facts)
        with pytest.raises(UsageError, match=f"b.ckpt cannot be averaged.*their {word} differ"):
            read_checkpoint(first, other)
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_checkpoint(first, tmp_path / "none.ckpt")


def test_a_version_that_did_not_know_forms_is_refused(tmp_path):
    path, _ = stage(tmp_path / "old.ckpt", 1)
    saved = torch.load(path, weights_only=True)
    del saved["textray"]["form"]
    torch.save(saved, path)
    with pytest.raises(UsageError, match=r"old\.ckpt is not a readable checkpoint of textray train"):
        read_checkpoint(path)


@pytest.mark.parametrize("arguments", [["--seed_everything=1"], ["--model.initial", "x.ckpt"]])
def test_whether_a_training_started_from_another_is_read_from_its_run_where_the_checkpoint_is_older(
    tmp_path, arguments
):
    (tmp_path / "checkpoints").mkdir()
    path, _ = stage(tmp_path / "checkpoints" / "last.ckpt", 1)
    (tmp_path / "run.json").write_text(json.dumps({"recipe": ["a.yaml"], "git": None, "arguments": arguments}))
    facts, _ = read_checkpoint(path)
    assert facts["recipe"] == ["a.yaml"]
    assert facts["started"] is (len(arguments) == 2)


def foreign(kind, path):
    """A file that is no checkpoint of `textray train`."""
    network = UNet(UNetConfig(in_channels=1, width=4))
    authors = {"state_dict": {"model.w": torch.ones(2)}, "pytorch-lightning_version": "1.9.0"}
    saved = {
        "module": network, "state dict": network.state_dict(), "authors": authors, "tensor": torch.ones(2),
        "numbers": [1, 2],
    }  # fmt: skip
    if kind in saved:
        torch.save(saved[kind], path)
    elif kind == "cut":
        torch.save(authors, path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        from safetensors.torch import save

        path.write_bytes({"empty": b"", "text": b"not a checkpoint", "safetensors": save({"w": torch.ones(2)})}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("module", "whole module, which are not read because they could run code"),
        ("state dict", "a plain state dict of"),
        ("authors", "textray import NAME FILE"), ("tensor", "a tensor"), ("numbers", "is not a readable checkpoint"),
        ("cut", "Copy it again"), ("empty", "an empty file"), ("text", "a file of another kind"),
        ("safetensors", "Name the folder of the bundle"),
    ],
)  # fmt: skip
def test_a_foreign_or_damaged_file_is_refused_in_a_sentence(kind, words, tmp_path):
    path = foreign(kind, tmp_path / "other.ckpt")
    for read in (read_network, facts_of, read_checkpoint):
        with pytest.raises(UsageError) as refused:
            read(path)
        assert words in str(refused.value)
        assert "weights_only" not in str(refused.value)

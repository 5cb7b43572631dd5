"""Graphs of bundles: whole, as of old, or with their weights beside them."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from textray.errors import BundleError, UsageError  # noqa: E402
from textray.export.onnx import store_weights  # noqa: E402
from textray.inference import runtime  # noqa: E402
from textray.inference.bundle import Bundle  # noqa: E402
from textray.inference.bundle_files import list_files  # noqa: E402
from textray.inference.runtime import Runtime  # noqa: E402
from textray.training.checkpoints import round_to_half  # noqa: E402

SIZE = 16
NO_TEXT = np.zeros((2, 0, 0), np.float32), np.zeros((2, 0), np.float32)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = torch.nn.Conv2d(3, 130, 3, padding=1)  # 130: a length of two bytes in protobuf
        self.norm = torch.nn.BatchNorm2d(130)
        self.head = torch.nn.Conv2d(130, 1, 1)
        round_to_half(self)


def whole_graph(network):
    norm = [f"network.norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    nodes = [
        helper.make_node("Conv", ["image", "network.mix.weight", "network.mix.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"]),
        helper.make_node("Conv", ["b", "network.head.weight", "network.head.bias"], ["c"]),
        helper.make_node("Add", ["c", "offset"], ["logits"]),  # what is no weight of the network stays in the graph
    ]
    weights = {f"network.{name}": value.numpy() for name, value in network.state_dict().items() if value.ndim}
    weights["offset"] = np.float32(0.25)
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", channels, SIZE, SIZE])
        for name, channels in (("image", 3), ("logits", 1))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", shapes[:1], shapes[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def sealed_again(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"files": list_files(folder, config["files"])}))
    return Bundle.load(folder)


@pytest.fixture
def light(make_bundle, tmp_path):
    """A bundle whose graph holds no weights."""
    make_bundle(tmp_path / "light", reads_text=False, size=SIZE)
    network = Small()
    onnx.save(whole_graph(network), tmp_path / "light" / "model.onnx")
    store_weights(network, tmp_path / "light")
    return sealed_again(tmp_path / "light")


def test_a_graph_without_weights_says_what_the_whole_one_says(light, make_bundle, tmp_path):
    make_bundle(tmp_path / "old", reads_text=False, size=SIZE)
    onnx.save(whole_graph(Small()), tmp_path / "old" / "model.onnx")
    old = sealed_again(tmp_path / "old")
    image = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    told, wanted = (Runtime(bundle).run(image, *NO_TEXT)["logits"] for bundle in (light, old))
    np.testing.assert_array_equal(told, wanted)
    assert told.std() > 0.1
    assert [t.name for t in onnx.load(light.folder / "model.onnx").graph.initializer] == ["offset"]
    assert load_file(light.folder / "model.safetensors")["mix.weight"].dtype == np.float16


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("mix.weight"),
        lambda tensors: tensors.update(more=np.zeros(3, np.float32)),
        lambda tensors: tensors.update({"mix.bias": tensors["mix.bias"][1:].copy()}),
        lambda tensors: tensors.update({"mix.bias": tensors["mix.bias"].astype(np.float16)}),
        lambda tensors: tensors.update({"mix.bias": tensors["mix.bias"] + 1}),
    ],
    ids=["missing", "more", "shape", "type", "values"],
)
def test_a_graph_takes_no_other_weights_than_it_was_written_with(light, change):
    file = light.folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(BundleError, match=r"altered|cut off"):
        Bundle.load(light.folder)
    with pytest.raises(BundleError, match=r"model\.onnx of bundle tiny cannot be loaded.*network"):
        Runtime(sealed_again(light.folder))


def test_a_graph_that_points_to_further_files_is_refused(light, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = whole_graph(Small())
    onnx.save(
        graph, "m.onnx", save_as_external_data=True, location="secret.bin", size_threshold=0, convert_attribute=True
    )
    (tmp_path / "m.onnx").replace(light.folder / "model.onnx")
    with pytest.raises(BundleError, match="points to further files"):
        Runtime(sealed_again(light.folder))


@pytest.mark.parametrize(
    ("own", "files", "threads"),
    [
        ("0::/box", {"box/cpu.max": "150000 100000\n"}, 2),
        ("0::/box", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/box", {"box/cpu.max": "max 100000\n"}, 8),
        ("4:cpu,cpuacct:/a/b", {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "3", "cpu,cpuacct/a/b/cpu.cfs_period_us": "1"}, 3),
        ("4:cpu:/a", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("", {}, 8),
    ],
)  # fmt: skip
def test_threads_by_affinity_and_the_quota_of_a_container(tmp_path, monkeypatch, own, files, threads):
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(runtime, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert runtime.default_threads() == threads
    assert runtime.default_threads(5) == 5
    with pytest.raises(UsageError, match="512"):
        runtime.default_threads(100_000)

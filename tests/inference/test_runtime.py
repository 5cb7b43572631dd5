"""Graphs of bundles: whole, as of old, or with their weights beside them."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from textray.errors import BundleError, TextRayError, UsageError  # noqa: E402
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


def external(tensor, key=b"location"):
    """A tensor whose values are bytes of a file."""
    outside = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key=key.decode(), value="secret.bin")
    return outside


@pytest.mark.parametrize("kind", ["initialiser", "constant", "branch", "function", "longer key", "own format"])
def test_no_kind_of_graph_reads_a_file_beside_it(light, tmp_path, monkeypatch, kind):
    """Wherever the tensor stands in the graph, and however its key is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"\x7f" * 64)
    model = whole_graph(Small())
    outside = external(numpy_helper.from_array(np.float32(0), "offset"))
    del model.graph.initializer[-1]
    if kind in ("initialiser", "longer key", "own format"):
        model.graph.initializer.append(outside)
    else:
        constant = helper.make_node("Constant", [], ["offset"], value=outside)
        if kind == "branch":
            result = helper.make_tensor_value_info("offset", TensorProto.FLOAT, [])
            branch = helper.make_graph([constant], "branch", [], [result])
            yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.bool_(True)))
            constant = helper.make_node("If", ["yes"], ["offset"], then_branch=branch, else_branch=branch)
            model.graph.node.insert(0, yes)
        elif kind == "function":
            opsets = [helper.make_opsetid("", 18)]
            model.functions.append(helper.make_function("own", "Read", [], ["offset"], [constant], opsets))
            model.opset_import.append(helper.make_opsetid("own", 1))
            constant = helper.make_node("Read", [], ["offset"], domain="own")
        model.graph.node.insert(len(model.graph.node) - 1, constant)
    graph = model.SerializeToString()
    if kind == "longer key":  # protobuf allows a length in more bytes than it needs
        graph = graph.replace(b"\x08location", b"\x88\x00location")
    if kind == "own format":
        graph = graph[:4] + b"ORTM" + graph[8:]
    (light.folder / "model.onnx").write_bytes(graph)
    with pytest.raises(BundleError, match=r"points to further files|own format"):
        Runtime(sealed_again(light.folder))


def spoilt(node):
    """The graph with a node that makes ``logits`` of its scores ``c``."""
    model = whole_graph(Small())
    del model.graph.node[-1]
    model.graph.node.extend(node)
    return model.SerializeToString()


def test_a_graph_that_answers_nothing_finite_or_never_ends_is_named(cli, light, film, tmp_path, monkeypatch):
    zero = helper.make_node("Sub", ["c", "c"], ["zero"])
    (light.folder / "model.onnx").write_bytes(spoilt([zero, helper.make_node("Reciprocal", ["zero"], ["logits"])]))
    sealed_again(light.folder)
    film(tmp_path / "chest.png", shape=(90, 70))
    words = ("segment", tmp_path / "chest.png", "--model", light.folder, "--out", tmp_path / "out")
    result = cli(*words)
    assert (result.code, "error E_NETWORK" in result.err, "not finite" in result.err) == (3, True, True)
    values = [helper.make_tensor_value_info(n, t, []) for n, t in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))]
    state = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("before", "after")]
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    steps = [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Neg", ["before"], ["after"])]
    body = helper.make_graph(steps, "body", [*values, state[0]], [again, state[1]])
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.bool_(True)))
    loop = helper.make_node("Loop", ["", "yes", "c"], ["logits"], body=body)
    (light.folder / "model.onnx").write_bytes(spoilt([yes, loop]))
    bundle = sealed_again(light.folder)
    monkeypatch.setattr(runtime, "MOST_SECONDS", 0.3)
    with pytest.raises(TextRayError, match=r"did not come to an end. Got 0\.3 s"):
        Runtime(bundle).run(np.zeros((2, 3, SIZE, SIZE), np.float32), *NO_TEXT)


def test_a_graph_that_claims_or_computes_a_constant_of_4_gib_is_refused_without_it(light):
    claimed = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 30], raw_data=b"\0" * 16)
    model = onnx.load_from_string(spoilt([helper.make_node("ReduceMax", ["huge"], ["logits"])]))
    model.graph.initializer.append(claimed)
    (light.folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="cannot be loaded"):
        Runtime(sealed_again(light.folder))
    length = helper.make_node("Constant", [], ["length"], value=numpy_helper.from_array(np.array([1 << 30])))
    largest = helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0)
    nodes = [length, helper.make_node("ConstantOfShape", ["length"], ["huge"]), largest]
    (light.folder / "model.onnx").write_bytes(spoilt([*nodes, helper.make_node("Add", ["c", "most"], ["logits"])]))
    with pytest.raises(TextRayError, match="the network failed"):
        Runtime(sealed_again(light.folder)).run(np.zeros((2, 3, SIZE, SIZE), np.float32), *NO_TEXT)

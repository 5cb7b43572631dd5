"""A bundle with a real text bank and network, whose graph draws the left half exactly where one token is there."""

import json

import numpy as np
import pytest

SIZE = 64
DECISIVE = 5
"""The position of the token that the graph looks at."""


def graph(tokens, width):
    from onnx import TensorProto, helper, numpy_helper

    half = np.full((1, 1, SIZE, SIZE), 0.0, np.float32)
    half[..., : SIZE // 2] = 8.0
    one_hot = np.zeros((tokens, 1), np.float32)
    one_hot[DECISIVE] = 1
    constants = {"half": half, "one_hot": one_hot, "shape": np.array([-1, 1, 1, 1]), "low": np.float32(-4)}
    constants |= {"zero": np.float32(0), "axes": np.array([1, 2, 3]), "axes2": np.array([1, 2])}
    nodes = [
        helper.make_node("MatMul", ["text_mask", "one_hot"], ["there"]),
        helper.make_node("Reshape", ["there", "shape"], ["there4"]),
        helper.make_node("Mul", ["there4", "half"], ["drawn"]),
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        helper.make_node("ReduceMean", ["text_features", "axes2"], ["words"], keepdims=0),
        helper.make_node("Reshape", ["words", "shape"], ["words4"]),
        helper.make_node("Add", ["mean", "words4"], ["read"]),
        helper.make_node("Mul", ["read", "zero"], ["nothing"]),
        helper.make_node("Add", ["drawn", "low"], ["shifted"]),
        helper.make_node("Add", ["shifted", "nothing"], ["logits"]),
    ]
    shapes = {"image": ["B", 3, SIZE, SIZE], "text_features": ["B", tokens, width], "text_mask": ["B", tokens]}
    made = helper.make_graph(
        nodes,
        "one token decides",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 1, SIZE, SIZE])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def build(folder, model="mmi_unet", **changes):
    import torch
    from safetensors.torch import save_file

    from textray.inference.bundle import seal
    from textray.models.build import build as build_network
    from textray.nn.bert import load_text_encoder
    from textray.preprocess import Preprocess
    from textray.registry import model as row
    from textray.text.zones import bank_sentences

    encoder = load_text_encoder("tiny", max_tokens=40)
    features, mask = encoder(bank_sentences())
    tokens = int(mask.sum(1).max())
    config = {"trunk": "convnext_atto", "text_width": 32, **changes}
    torch.manual_seed(0)
    network = build_network(row(model).form("paper"), config)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph(tokens, 32))
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(state, str(folder / "model.safetensors"))
    bank = {"features": features[:, :tokens].half().contiguous(), "mask": mask[:, :tokens].to(torch.uint8).contiguous()}
    save_file(bank, str(folder / "text_bank.safetensors"))
    (folder / "preprocess.json").write_text(json.dumps(Preprocess(size=(SIZE, SIZE)).to_dict()))
    (folder / "README.md").write_text("# one token decides\n")
    (folder / "LICENSE").write_text("CC0\n")
    return seal(
        folder,
        name="decides",
        version="0",
        model=model,
        form="paper",
        model_config=config,
        threshold=0.5,
        text_encoder="tiny",
        provenance={"data": "none"},
    )


@pytest.fixture(scope="session")
def deciding(tmp_path_factory):
    """The bundle; shared, so do not change it."""
    return build(tmp_path_factory.mktemp("deciding") / "bundle")


@pytest.fixture(scope="session")
def guided(tmp_path_factory):
    """The same around a GuideDecoder with room for all tokens."""
    return build(tmp_path_factory.mktemp("guided") / "bundle", "guide_decoder", tokens=40)

"""A bundle with a real text bank and network, whose graph draws the left half exactly where one token is there."""

import numpy as np
import pytest

SIZE = 64
DECISIVE = 5
"""The position of the token that the graph looks at."""
GRAPH = """(float[B,3,{size},{size}] image, float[B,{tokens},32] text_features, float[B,{tokens}] text_mask)
    => (float[B,1,{size},{size}] logits) {{
        there = MatMul (text_mask, one_hot)
        there4 = Reshape (there, shape)
        drawn = Mul (there4, half)
        mean = ReduceMean <keepdims=1> (image, axes)
        words = ReduceMean <keepdims=0> (text_features, axes2)
        words4 = Reshape (words, shape)
        read = Add (mean, words4)
        nothing = Mul (read, zero)
        shifted = Add (drawn, low)
        logits = Add (shifted, nothing)
    }}"""


@pytest.fixture(scope="session")
def build(make_bundle, make_graph, tmp_path_factory):
    """Build a bundle around a network: ``build(model, **config)``."""

    def make(model, **changes):
        import torch

        from textray.models.build import build as build_network
        from textray.nn.bert import load_text_encoder
        from textray.registry import model as row
        from textray.text.zones import bank_sentences

        features, mask = load_text_encoder("tiny", max_tokens=40)(bank_sentences())
        tokens = int(mask.sum(1).max())
        bank = {"features": features[:, :tokens].half(), "mask": mask[:, :tokens].to(torch.uint8)}
        half, one_hot = np.zeros((1, 1, SIZE, SIZE), np.float32), np.zeros((tokens, 1), np.float32)
        half[..., : SIZE // 2], one_hot[DECISIVE] = 8, 1
        constants = {"half": half, "one_hot": one_hot, "shape": np.array([-1, 1, 1, 1]), "low": np.float32(-4)}
        constants |= {"zero": np.float32(0), "axes": np.array([1, 2, 3]), "axes2": np.array([1, 2])}
        config = {"trunk": "convnext_atto", "text_width": 32, **changes}
        torch.manual_seed(0)
        state = build_network(row(model).form("paper"), config).state_dict()
        return make_bundle(
            tmp_path_factory.mktemp(model) / "bundle",
            name="decides",
            model=model,
            model_config=config,
            graph=make_graph(GRAPH.format(size=SIZE, tokens=tokens), constants),
            bank={name: value.contiguous().numpy() for name, value in bank.items()},
            weights={k: (v.half() if v.is_floating_point() else v).contiguous().numpy() for k, v in state.items()},
        )

    return make


@pytest.fixture(scope="session")
def deciding(build):
    """The bundle; shared, so do not change it."""
    return build("mmi_unet")


@pytest.fixture(scope="session")
def guided(build):
    """The same around a GuideDecoder with room for all tokens."""
    return build("guide_decoder", tokens=40)

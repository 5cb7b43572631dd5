"""A checkpoint in the published layout with random numbers, and the folder of a one-layer text encoder beside it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest


class Runs:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="session")
def runs():
    """Make an object that calls a function when its pickle is read: ``runs(function, *arguments)``."""
    return Runs


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """Folder with ``vocab.txt`` and ``config.json`` of a BERT of one layer; its width is the published one.

    It cuts "unilateral" into pieces, as BERT's own vocabulary does.
    """
    folder = tmp_path_factory.mktemp("encoder")
    words = "un ##ila ##tera ##l bilateral pulmonary infection one two three four five six infected area areas "
    words += "upper middle lower left right lung and no , ."
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words.split()]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    config = {"vocab_size": len(pieces), "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12}
    config |= {"intermediate_size": 64, "max_position_embeddings": 32, "architectures": ["CXRBertModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def bert(tmp_path, encoder_folder):
    """A copy of this folder to change."""
    return Path(shutil.copytree(encoder_folder, tmp_path / "bert"))


@pytest.fixture(scope="session")
def encoder_state(encoder_folder):
    """Its tensors by the names of CXR-BERT's own file, a language-model head among them."""
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = BertConfig(**json.loads((encoder_folder / "config.json").read_text()))
        trunk = BertModel(config, add_pooling_layer=False)
    state = {f"bert.{name}": value.clone() for name, value in trunk.state_dict().items()}
    return state | {"cls.predictions.bias": torch.zeros(config.vocab_size)}


@pytest.fixture(scope="session")
def published_state(encoder_state):
    """Build all tensors of a published network: ``published_state(name) -> dict``; as large as the published one."""
    torch = pytest.importorskip("torch")
    from textray.models.released.keys import published, text_encoder_prefix

    def make(name):
        rng = np.random.default_rng(0)
        state = {}
        for key, shape in published(name).items():
            noise = rng.random(shape, dtype=np.float32) - np.float32(0.5)
            if key.endswith("num_batches_tracked"):
                state[key] = torch.tensor(100)
            elif key.endswith("running_var") or (len(shape) == 1 and key.endswith(("weight", "gamma"))):
                state[key] = torch.from_numpy(1 + noise / 4)
            elif len(shape) > 1:
                fan = int(np.prod(shape[1:]))
                state[key] = torch.from_numpy(noise * np.float32((12 / fan) ** 0.5))
            else:
                state[key] = torch.from_numpy(np.asarray(noise / 4))
        prefix = text_encoder_prefix(name)
        return state if prefix is None else state | {prefix + key: value for key, value in encoder_state.items()}

    return make

"""From a checkpoint of a grounding training to weights that `textray ground` uses."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import textray
from textray.errors import BundleError, UsageError
from textray.export.grounder import check_grounding, export_grounding
from textray.export.segmenter import export
from textray.inference.bundle import GroundingBundle
from textray.inference.localizer import Localizer
from textray.io.read import from_array
from textray.models.sentence_grounding import SentenceGrounding, SentenceGroundingConfig
from textray.nn.bert import BertSizes, TextTrunkConfig
from textray.preprocess import Preprocess
from textray.text.tokens import Aggregation, build_vocabulary, pad
from textray.training.checkpoints import read_checkpoint, task_of

SIZES = BertSizes(pieces=160, width=16, layers=1, heads=2, feed_forward=32, positions=40)
CONFIG = SentenceGroundingConfig(
    positions=True,
    trunk="efficientnet_lite0.ra_in1k",
    enlarge=None,
    width=24,
    text=TextTrunkConfig(encoder="own", last_layers=1, own=SIZES),
)
TEXTS = ["bilateral pulmonary infection, two infected areas, lower left lung and upper right lung.", "opacity"]
EXCLUDED = {"sha256": "ab" * 32, "count": 7}


def checkpoint(path, seed=0, **changes):
    """A checkpoint as a grounding training writes it, of a network with random weights."""
    torch.manual_seed(seed)
    network = SentenceGrounding(CONFIG)
    data = {"name": "qata_cov19", "laterality": "viewer", "preprocess": Preprocess(size=(64, 96)).to_dict()}
    data |= {"sentences": "clauses", "images": {"fit": 5, "inner": 2}, "seed": 3, "excluded_patients": EXCLUDED}
    facts = {"version": "0.1.0", "task": "grounding", "network": "sentence_grounding", "form": "paper"}
    facts |= {"config": asdict(CONFIG), "aggregation": asdict(Aggregation()), "data": data}
    facts |= {"text_encoder": "own", "max_tokens": 0, "vocabulary": list(build_vocabulary(TEXTS, 160)), "lower": True}
    facts |= {"most_pieces": 32, "mode": "paper", "targets": "identical_text", "local_unit": "sentence"}
    facts |= {"epoch": 2, "max_epochs": 4, "started": False, **changes}
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"textray": facts, "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    path = checkpoint(folder / "run/checkpoints/best.ckpt")
    return path, export_grounding(path, folder / "mine")


@pytest.mark.slow
def test_the_bundle_says_what_the_network_says(exported):
    path, bundle = exported
    _, network = read_checkpoint(path)
    localizer = Localizer(bundle, threads=1)
    rng = np.random.default_rng(0)
    image = from_array(rng.random((80, 70), np.float32))
    batch = pad([localizer.read(text) for text in TEXTS])
    assert batch.sentence.max() == 2  # the caption's three clauses
    with torch.inference_mode():
        parts = (torch.from_numpy(part) for part in (batch.ids, batch.attention, batch.word, batch.sentence))
        report = network.encode_text(*parts).report
        wanted = network(torch.from_numpy(bundle.preprocess.apply(image)[None]), report).numpy()
    found = localizer.maps(bundle.preprocess.apply(image)[None], localizer.embed(TEXTS))
    assert found.shape == (1, 2, 4, 6) == (1, 2, *bundle.map_size)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.std() > 1e-3
    located = localizer.locate(image, [TEXTS[0]], laterality="patient")
    assert located[0].told.startswith("bilateral pulmonary infection, two infected areas, lower right lung")
    for graph in ("image.onnx", "text.onnx"):
        assert str(Path(textray.__file__).parent).encode() not in bundle.read(graph), "no folder of this machine"


@pytest.mark.slow
def test_the_bundle_holds_half_precision_what_is_known_and_nothing_else(exported):
    import onnx

    path, bundle = exported
    parameters = sum(p.numel() for p in SentenceGrounding(CONFIG).parameters())
    assert bundle.size_bytes < 2 * parameters * 1.35  # once, and what is not parameters
    for name in ("image.onnx", "text.onnx"):
        graph = onnx.load(str(bundle.folder / name)).graph
        wide = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        assert not any(name.startswith("network.") for name in wide)
    assert bundle.provenance["excluded_patients"] == EXCLUDED
    assert (bundle.model, bundle.name, bundle.text.sentences) == ("sentence_grounding", "mine", "clauses")
    assert str(bundle.text.laterality) == "viewer"
    card = (bundle.folder / "README.md").read_text()
    for words in ("Patients left out of the training: 7", "4×6 cells", "targets `identical_text`"):
        assert words in card
    assert str(path) not in card + json.dumps(bundle.provenance)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["weights", "maps", "embed"])
def test_other_weights_than_torchs_and_nan_do_not_pass(exported, monkeypatch, broken):
    path, bundle = exported
    _, network = read_checkpoint(path)
    if broken == "weights":
        torch.manual_seed(1)
        network = SentenceGrounding(CONFIG).eval()
    else:
        compute = getattr(Localizer, broken)

        def with_nan(localizer, *given):
            values = compute(localizer, *given).copy()
            values[0, 0] = np.nan
            return values

        monkeypatch.setattr(Localizer, broken, with_nan)
    with pytest.raises(BundleError, match="disagree"):
        check_grounding(bundle, network, [from_array(np.eye(64, dtype=np.float32))])


@pytest.mark.slow
def test_the_command_finds_the_task_by_itself(cli, exported, tmp_path, film):
    path, bundle = exported
    result = cli("export", path, "--out", tmp_path / "mine")
    assert result.code == 0, result.err
    assert GroundingBundle.load(tmp_path / "mine").sha256 == bundle.sha256
    film(tmp_path / "chest.png")
    result = cli("ground", tmp_path / "chest.png", "--phrase", "opacity", "--model", bundle.folder, "--out", tmp_path)
    assert result.code == 0
    result = cli("export", path, "--out", tmp_path / "other", "--text-free", "none")
    assert (result.code, "networks that segment" in result.err) == (2, True)


def test_the_task_of_a_checkpoint(tmp_path):
    assert task_of(checkpoint(tmp_path / "a.ckpt")) == "grounding"
    (tmp_path / "b.ckpt").write_bytes(b"no checkpoint")
    assert task_of(tmp_path / "b.ckpt") == task_of(tmp_path / "none.ckpt") == "segmentation"


def test_checkpoints_of_other_words_are_not_averaged(tmp_path):
    one = checkpoint(tmp_path / "a.ckpt")
    other = checkpoint(tmp_path / "b.ckpt", 1, vocabulary=list(build_vocabulary([*TEXTS, "more words"], 160)))
    with pytest.raises(UsageError, match="their vocabulary differ"):
        export_grounding(one, tmp_path / "mine", average=[other])
    assert not (tmp_path / "mine").exists()


def test_the_export_of_segmenters_refuses_it_and_says_what_to_use(tmp_path):
    with pytest.raises(UsageError, match="export_grounding"):
        export(checkpoint(tmp_path / "a.ckpt"), tmp_path / "mine")

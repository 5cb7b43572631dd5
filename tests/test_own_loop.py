"""Networks in loops of one's own: loaded from files, and made predictors without any."""

import pickle
import tempfile
from dataclasses import asdict

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

import textray  # noqa: E402
import textray.data  # noqa: E402
import textray.models  # noqa: E402
from textray import registry  # noqa: E402
from textray.augment import Augment  # noqa: E402
from textray.data import EpochSampler, SegmentationSet, collate, open_reader  # noqa: E402
from textray.errors import BundleError, ShapeError, UsageError  # noqa: E402
from textray.explain.attention import AttentionReader  # noqa: E402
from textray.export.segmenter import export  # noqa: E402
from textray.io.read import from_array  # noqa: E402
from textray.models import MMIUNet, MMIUNetConfig, SGSegSimple, SGSegSimpleConfig, UNet, UNetConfig  # noqa: E402
from textray.models.self_guided import PooledConfig  # noqa: E402
from textray.nn.bert import load_text_encoder  # noqa: E402
from textray.preprocess import Preprocess  # noqa: E402

SMALL = {"trunk": "efficientnet_lite0", "text_width": 32, "decoder_channels": (8, 8, 8), "ffn_width": 16}
WAY = Preprocess(size=(64, 64))


def matching(**options):
    torch.manual_seed(0)
    return MMIUNet(MMIUNetConfig(**SMALL, **options)).eval()


def plain():
    torch.manual_seed(0)
    return UNet(UNetConfig(width=4)).eval()


def self_guided():
    torch.manual_seed(0)
    sizes = {"guide_decoder": None, "mmi_unet": MMIUNetConfig(**SMALL), "tokens": 24}
    return SGSegSimple(SGSegSimpleConfig(locator=PooledConfig(trunk="efficientnet_lite0", width=8), **sizes)).eval()


def save(network, path):
    """A checkpoint as `textray train` writes it."""
    name, form = registry.form_of(type(network))
    text = network.text_width is not None
    data = {"name": "phantom", "laterality": "viewer", "preprocess": WAY.to_dict(), "images": {}, "seed": 0}
    facts = {
        "version": "0.1.0", "network": name, "form": form, "config": asdict(network.config), "max_tokens": 24,
        "text_encoder": "tiny" if text else None, "epoch": 1, "max_epochs": 1,
        "data": {**data, "augment": "none", "report_dropout": 0.0},
    }  # fmt: skip
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"textray": facts, "state_dict": state}, path)
    return path


@pytest.mark.parametrize("build", [plain, matching], ids=["plain", "matching"])
def test_a_checkpoint_is_its_network(build, tmp_path):
    network = build()
    found = textray.load_network(str(save(network, tmp_path / "best.ckpt")))
    assert type(found) is type(network)
    assert found.config == network.config
    assert not found.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in found.state_dict().items())


def test_what_is_no_network_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no such checkpoint.*none\.ckpt"):
        textray.load_network(tmp_path / "none.ckpt")
    with pytest.raises(UsageError, match=r"unknown bundle 'sgseg_lit'.*sgseg_lite.*bundle folder"):
        textray.load_network("sgseg_lit")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"notes\.txt is not a readable checkpoint"):
        textray.load_network(tmp_path / "notes.txt")
    path = save(plain(), tmp_path / "half.ckpt")
    saved = torch.load(path, weights_only=True)
    del saved["state_dict"]["network.head.weight"]
    torch.save(saved, path)
    with pytest.raises(UsageError, match=r"half\.ckpt does not hold the whole unet.*head\.weight"):
        textray.load_network(path)


def test_a_bundle_with_other_tensors_is_named(make_bundle, tmp_path):
    bundle = make_bundle(tmp_path / "tiny", reads_text=False, model_config={"width": 4})
    with pytest.raises(UsageError, match=r"tiny is of another network.*blur"):
        textray.load_network(bundle)


@pytest.mark.slow
@pytest.mark.parametrize("build", [plain, matching, self_guided], ids=["plain", "matching", "self-guided"])
def test_a_predictor_from_memory_is_that_of_the_exported_bundle(build, tmp_path, monkeypatch):
    network, text = build(), load_text_encoder("tiny", max_tokens=24)
    if build is self_guided:
        from textray.text.zones import bank_sentences

        network.set_bank(*text(bank_sentences()))
        network.set_thresholds(torch.full((6,), 0.3))  # far from what a network without training says
    encoder = None if build is plain else text
    exported = export(save(network, tmp_path / "best.ckpt"), tmp_path / "bundle", text_encoder_folder=None)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    made = textray.predictor(network, preprocess=WAY, text_encoder=encoder, threads=1)
    assert list(scratch.iterdir()) == []
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    usual = textray.load(exported.folder, threads=1)
    film = from_array(np.random.default_rng(0).random((90, 70), dtype=np.float32))
    for words in (None, "left base"):
        wanted = usual.segment(film, words)
        for model in (made, pickle.loads(pickle.dumps(made))):
            found = model.segment(film, words)
            assert np.array_equal(found.probability, wanted.probability)
            assert np.array_equal(found.mask, wanted.mask)
            assert found.record["text"] == wanted.record["text"]
    for source in (exported, exported.folder, made.bundle):
        state = textray.load_network(source).state_dict()
        assert all(
            torch.allclose(value.float(), before[key].float(), atol=2e-3, rtol=1e-3) for key, value in state.items()
        )
    if build is matching:
        assert AttentionReader(made.bundle).network.config == network.config


def test_a_predictor_from_memory_knows_captions(tmp_path):
    words = ["a few nuclei", "many nuclei"]
    encoder = load_text_encoder("tiny", max_tokens=24)
    made = textray.predictor(matching(), preprocess=WAY, text_encoder=encoder, captions=[*words, "Many  nuclei"])
    assert made.bundle.captions == tuple(words)


def grounding():
    from textray.models.sentence_grounding import SentenceGrounding

    return SentenceGrounding.__new__(SentenceGrounding)


@pytest.mark.parametrize(
    ("build", "given", "kind", "words"),
    [
        (grounding, {}, UsageError, r"SentenceGrounding is no segmentation network.*mmi_unet.*textray export"),
        (lambda: torch.nn.Sequential(plain()), {}, UsageError, "Sequential is no segmentation network.*not what wraps"),
        (lambda: plain().train(), {}, UsageError, r"UNet is in training mode.*network\.eval\(\)"),
        (lambda: plain().to("meta"), {}, UsageError, r"UNet is not on the CPU.*on meta.*network\.cpu\(\)"),
        (lambda: plain().half(), {}, UsageError, r"single precision.*torch\.float16"),
        (matching, {}, UsageError, r"text encoder is not that of MMIUNet.*Got None.*width 32"),
        (matching, {"text_encoder": "tiny"}, UsageError, r"Got 'tiny'.*load_text_encoder"),
        (plain, {"text_encoder": load_text_encoder("tiny")}, UsageError, "Got tiny of width 32.*reads no text"),
        (plain, {"preprocess": Preprocess(size=(64, 60))}, ShapeError, "UNet cannot run on this image.*multiples of"),
        (plain, {"preprocess": Preprocess(size=(64, 64), channels=1)}, ShapeError, r"\(1, 1, 64, 64\)"),
        (plain, {"threshold": 1.0}, UsageError, "threshold is wrong"),
        (self_guided, {"text_encoder": load_text_encoder("tiny")}, BundleError, r"0 tokens.*network\.set_bank"),
    ],
)
def test_what_makes_no_predictor_is_named(build, given, kind, words):
    with pytest.raises(kind, match=words):
        textray.predictor(build(), **{"preprocess": WAY, **given})


def test_the_sets_of_a_loop_know_the_epoch():
    data = SegmentationSet(open_reader("phantom").samples("inner"), WAY, augment=Augment.preset("strong"), seed=1)
    order = EpochSampler(len(data), seed=0, shuffle=True)
    seen = []
    for epoch in (0, 1, 1):
        order.set_epoch(epoch)
        (batch,) = DataLoader(data, batch_size=len(data), sampler=order, collate_fn=collate)
        seen.append(batch["image"][batch["index"].argsort()])
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])
    with pytest.raises(UsageError, match=r"must know the epoch.*Got index 0.*EpochSampler.*plain\(\)"):
        data[0]
    (batch,) = DataLoader(data.plain(), batch_size=len(data), collate_fn=collate)
    assert batch["image"].shape == (len(data), 3, 64, 64)
    assert torch.equal(batch["image"][0], data.plain()[0, 0]["image"])


def test_the_names_of_the_packages_are_those_of_the_registry():
    """A network that is added to the registry is added to `textray.models` too."""
    rows = [form for row in registry.MODELS.values() for form in row.forms if form.name == "paper"]
    names = {path.partition(":")[2] for form in rows for path in (form.path, form.config)}
    assert set(textray.models.__all__) == names | {"Network", "Output"}
    for module in (textray.models, textray.data):
        assert dir(module) == sorted(module.__all__)
        assert [name for name in module.__all__ if getattr(module, name).__name__ != name] == []
        with pytest.raises(AttributeError, match="no attribute 'Unet'"):
            _ = module.Unet

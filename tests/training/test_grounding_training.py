"""Training of sentence grounding: what is right for a film, pairs learned by heart, one process and two, resuming."""

import multiprocessing
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
from lightning import Trainer  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from textray.data.grounding import GroundingData  # noqa: E402
from textray.data.studies import StudyText  # noqa: E402
from textray.errors import UsageError  # noqa: E402
from textray.models.sentence_grounding import SentenceGrounding, SentenceGroundingConfig, similarity  # noqa: E402
from textray.nn.bert import BertSizes, TextTrunkConfig  # noqa: E402
from textray.nn.places import AmountTimesPlace  # noqa: E402
from textray.records import Zones  # noqa: E402
from textray.text.tokens import WordPiece, build_vocabulary, pad  # noqa: E402
from textray.text.zones import sentence  # noqa: E402
from textray.training.grounding import GroundingTask, shares, warm_up_text  # noqa: E402
from textray.training.grounding_losses import (  # noqa: E402
    Compared,
    GroundingCriterion,
    Temperatures,
    keys_of,
    retrieval,
)

ZONES = [Zones.from_index(index) for index in (1, 2, 4, 8, 16, 32, 9, 18)]
CAPTIONS = [tuple(sentence(zones).rstrip(".").split(", ")) for zones in ZONES]


def network(dropout=0.0, width=32):
    torch.manual_seed(0)
    own = BertSizes(pieces=512, width=32, layers=1, heads=2, feed_forward=64, positions=97)
    text = TextTrunkConfig(encoder="own", last_layers=1, dropout=dropout, own=own)
    return SentenceGrounding(SentenceGroundingConfig(trunk="convnext_atto", enlarge=None, width=width, text=text))


def phantom(folder, **settings):
    settings = {"size": (32, 32), "workers": 0, "paraphrase": 0.5, "cache": str(folder / "cache")} | settings
    return GroundingData("phantom", **settings)


def pairs(count=8):
    """A batch of bright patches and their captions, each of another place."""
    pieces = WordPiece(build_vocabulary([text for caption in CAPTIONS for text in caption], 512))
    batch = pad([pieces.encode(caption) for caption in CAPTIONS[:count]])
    image = np.random.default_rng(0).normal(0, 0.1, (count, 3, 32, 32)).astype(np.float32)
    for row, zones in enumerate(ZONES[:count]):
        for zone in np.flatnonzero(zones.present):
            image[row, :, 10 * (zone % 3) : 10 * (zone % 3) + 10, 16 * (zone // 3) : 16 * (zone // 3) + 16] += 2.0
    says = [frozenset(caption) for caption in CAPTIONS[:count]]
    return {
        "image": torch.from_numpy(image),
        "ids": torch.from_numpy(batch.ids),
        "attention": torch.from_numpy(batch.attention),
        "word": torch.from_numpy(batch.word),
        "sentence": torch.from_numpy(batch.sentence),
        "text": [StudyText(caption, says[i], says[i]) for i, caption in enumerate(CAPTIONS[:count])],
        "image_id": [str(i) for i in range(count)],
        "index": torch.arange(count),
    }


def test_what_lies_where_is_learned_from_texts_of_one_place():
    """Factored places, a dot product and a sigmoid, all past the paper: what is asked for is bright, and lies there."""
    random, zones = np.random.default_rng(0), 6
    present = random.random((64, zones)) < 0.5
    image = random.normal(0, 0.3, (64, 3, 6, 6)).astype(np.float32)
    for film, zone in np.argwhere(present):
        image[film, :, 2 * (zone % 3) : 2 * (zone % 3) + 2, 3 * (zone // 3) : 3 * (zone // 3) + 3] += 1.0
    named = [int(random.choice(np.flatnonzero(row))) if row.any() else 0 for row in present]
    statements = [
        StudyText((), frozenset({str(zone)}), frozenset(map(str, np.flatnonzero(row))))
        for zone, row in zip(named, present, strict=True)
    ]
    units = F.pad(torch.eye(zones), (0, 1))  # the last direction says nothing
    torch.manual_seed(0)
    places = AmountTimesPlace(3, zones + 1, quiet=0.5)
    criterion = GroundingCriterion(
        mode="paper", targets="entailed", aggregate="lse", match="dot", contrast="sigmoid", global_weight=0.5,
        local_weight=1.0, temperatures=Temperatures(attention=0.0),
    )  # fmt: skip
    before = criterion.bias.detach().clone()
    optimizer = torch.optim.Adam([*places.parameters(), *criterion.parameters()], lr=3e-2)
    for _ in range(150):
        local, texts = places(torch.from_numpy(image)), units[named]
        mask, cls = torch.ones(64, 1, dtype=torch.bool), torch.zeros_like(texts)
        found = Compared(local.mean((2, 3)), local.flatten(2), texts, texts[:, None], mask, cls, statements)
        loss = criterion(found).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (criterion.bias != before).all(), "both biases learn"
    with torch.no_grad():
        local = places(torch.from_numpy(image))
        asked = similarity(local, units).unflatten(2, (3, 2)).unflatten(4, (2, 3)).mean((3, 5))  # (64, 6, 3, 2)
    asked = asked.transpose(2, 3).flatten(2).numpy()  # (64, zones asked for, zones)
    for film, row in enumerate(present):
        for zone in range(zones):
            others = np.delete(asked[film, zone], zone)
            if row[zone]:
                assert asked[film, zone, zone] > 2 * others.max(), "the map of a bright zone lies there"
            else:
                assert asked[film, zone, zone] < asked[present[:, zone], zone, zone].min() / 2, "nothing is found there"


@pytest.mark.parametrize(
    ("mode", "unit", "targets"),
    [
        ("paper", "sentence", "identical_text"),
        ("released", "word", "diagonal"),
        pytest.param("paper", "report", "entailed", marks=pytest.mark.slow),
    ],
)
def test_pairs_are_learned_by_heart(mode, unit, targets):
    net, batch = network(), pairs()
    task = GroundingTask(net, mode=mode, local_unit=unit, targets=targets)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    first = None
    for _ in range(40):
        loss = task.criterion(task(batch)).total
        optimizer.zero_grad()
        loss.backward()
        if first is None:
            first = loss.item()
            reached = {
                name.partition(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()
            }
            assert reached == {"trunk", "text", "local", "pooled"}
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < first / 4
    with torch.no_grad():
        found = task(batch)
    scores = torch.nn.functional.normalize(found.films) @ torch.nn.functional.normalize(found.reports).T
    with torch.no_grad():
        for alike in (scores, task.criterion._places(found)):
            assert alike.argmax(0).tolist() == alike.argmax(1).tolist() == list(range(8))
    assert retrieval(found.films, found.reports, keys_of(batch["text"])) == 1


def gradients(task, batch):
    loss = task.training_step(batch, 0)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in task.network.named_parameters()}


def share_of(rank, ranks, port, target, queue):
    """One of several processes: its part of the batch, gradients averaged as by DDP."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    task = GroundingTask(network(), targets=target)
    task.log = lambda *_, **__: None
    batch = {key: value[rank::ranks] for key, value in pairs(6).items()}
    if rank == 0:  # texts of one process may be shorter than those of another
        most = int(batch["attention"].sum(1).max())
        batch |= {key: batch[key][:, :most] for key in ("ids", "attention", "word", "sentence")}
    loss, found = gradients(task, batch)
    for value in found.values():
        torch.distributed.all_reduce(value)
        value /= ranks
    if rank == 0:
        queue.put((float(loss) / ranks, {name: value.numpy() for name, value in found.items()}))
        queue.close()
        queue.join_thread()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_loss_and_the_gradient_of_one(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds this file
    targets = "entailed"  # the one for which the other process's texts must be known
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    runs = [context.Process(target=share_of, args=(rank, 2, port, targets, queue), daemon=True) for rank in range(2)]
    for run in runs:
        run.start()
    while queue.empty():
        assert all(run.exitcode in (None, 0) for run in runs), "a process has failed"
        runs[0].join(0.2)
    loss, found = queue.get(timeout=60)
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    task = GroundingTask(network(), targets=targets)
    task.log = lambda *_, **__: None
    expected, whole = gradients(task, pairs(6))
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), value, rtol=1e-3, atol=1e-5, msg=name)


def fit(folder, epochs, *, checkpoint=None):
    task = GroundingTask(network(dropout=0.1), lr=1e-3, targets="entailed", words_first=2)
    name = f"last-{epochs}-{checkpoint is not None}"
    saved = ModelCheckpoint(dirpath=folder, filename=name, save_on_train_epoch_end=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = Trainer(
            max_epochs=2, logger=False, callbacks=[saved], enable_progress_bar=False, enable_model_summary=False,
            accelerator="cpu", gradient_clip_val=0.25, limit_train_batches=2,
        )  # fmt: skip
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(task, datamodule=phantom(folder, batch_size=4, limit=8, workers=1), ckpt_path=checkpoint)
    return task, trainer, folder / f"{name}.ckpt"


def test_a_resumed_training_is_the_same_to_the_bit(tmp_path):
    whole, trainer, path = fit(tmp_path, 2)
    assert {"inner/loss", "inner/global", "inner/local", "inner/retrieval"} <= trainer.callback_metrics.keys()
    _, _, half = fit(tmp_path, 1)
    resumed, _, _ = fit(tmp_path, 2, checkpoint=half)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    facts = torch.load(path, weights_only=True)["textray"]
    wanted = {"task": "grounding", "network": "sentence_grounding", "most_pieces": 97}
    wanted["aggregation"] = {"piece": "sum", "word": "mean", "sentence": "mean"}
    assert {name: facts[name] for name in wanted} == wanted
    assert facts["vocabulary"][:2] == ["[PAD]", "[UNK]"]
    assert (facts["data"]["laterality"], facts["data"]["sentences"]) == ("viewer", "clauses")
    assert "excluded_patients" not in facts["data"]
    assert SentenceGroundingConfig(**facts["config"] | {"text": whole.network.config.text}) == whole.network.config


def test_what_cannot_be_trained_is_refused(tmp_path):
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=1)
    with pytest.raises(UsageError, match="longer than the text encoder"):
        trainer.fit(GroundingTask(network()), datamodule=phantom(tmp_path, most_pieces=128, limit=2))
    with pytest.raises(UsageError, match="weights of the losses"):
        GroundingTask(network(), global_weight=0.0, local_weight=0.0)


def test_a_bundle_to_start_from_brings_its_vocabulary(tmp_path):
    words = build_vocabulary(["lower left lung"], 120)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    task = GroundingTask(network(), initial=str(tmp_path))
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=1)
    assert task._vocabulary(GroundingData("phantom")) == tuple(words)


def test_weights_that_may_have_seen_patients_left_out_are_no_start(tmp_path):
    record = {"sha256": "0" * 64, "count": 3}
    for name, data in (("same", {"excluded_patients": record}), ("other", {}), ("pixels", None)):
        facts = {} if data is None else {"textray": {"data": data}}
        torch.save({"state_dict": {}, **facts}, tmp_path / f"{name}.ckpt")
    GroundingTask(network(), initial=str(tmp_path / "same.ckpt"))._refuse_seen(record)
    for initial in (str(tmp_path / "other.ckpt"), [f"trunk={tmp_path / 'pixels.ckpt'}"]):
        with pytest.raises(UsageError, match="may have seen the patients"):
            GroundingTask(network(), initial=initial)._refuse_seen(record)


# Words before films: texts that say the same come together, those of other sides apart, and nothing else changes.


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    module = phantom(tmp_path_factory.mktemp("cache"))
    module.setup("fit")
    module.set_vocabulary(WordPiece(module.own_vocabulary(512)))
    return module.sets["fit"]


def alike(net, texts, one, other):
    batch = pad([texts.word_pieces.encode((text,)) for text in (one, other)])
    tensors = map(torch.from_numpy, (batch.ids, batch.attention, batch.word, batch.sentence))
    with torch.no_grad():
        a, b = net.eval().encode_text(*tensors).report
    return float(torch.cosine_similarity(a, b, dim=0))


def test_shares_count_facts():
    statements = [StudyText((), frozenset(facts), frozenset()) for facts in ({"a"}, {"a", "b"}, {"b", "c", "d"})]
    expected = np.array([[1, 2**-0.5, 0], [2**-0.5, 1, 6**-0.5], [0, 6**-0.5, 1]])
    np.testing.assert_allclose(shares(statements, statements).numpy(), expected, rtol=1e-6)


def test_words_are_learned_without_films_and_nothing_else_changes(texts):
    net, again = network(0.1, width=24).eval(), network(0.1, width=24)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    assert warm_up_text(net, texts, steps=2) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not net.text.training
    assert all(parameter.grad is None for parameter in net.parameters())
    changed = {name for name, value in before.items() if not torch.equal(net.state_dict()[name], value)}
    assert {name.partition(".")[0] for name in changed} == {"text", "projection"}
    torch.rand(3)  # the seed of the data decides
    warm_up_text(again, texts, steps=2)
    for name, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    again.text.requires_grad_(False)
    again.projection.requires_grad_(False)
    with pytest.raises(UsageError, match="frozen"):
        warm_up_text(again, texts, steps=1)


@pytest.mark.slow
def test_sides_come_apart(texts):
    net = network(0.1, width=24).eval()
    sides, words = ("left upper zone", "right upper zone"), ("left upper zone", "upper left lung")
    before = alike(net, texts, *sides)
    assert 0 < warm_up_text(net, texts, steps=250) < 0.3
    assert alike(net, texts, *sides) < min(before, alike(net, texts, *words)) - 0.15

"""The Lightning module that trains sentence grounding: films and the sentences of their reports, no mask.

Past the paper, whose text encoder was pretrained on clinical notes, an encoder that starts at random may be warmed up
on texts alone (`warm_up_text`). From random weights words and films wait for each other: as long as "left" and "right"
are the same vector, no film can be matched by them, and while no film is, nothing draws the words apart.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from textray.data.grounding import GroundingBatch, GroundingData, GroundingSet
from textray.data.studies import RECORDED_AS, SentenceSampling, StudyText
from textray.errors import UsageError
from textray.models.sentence_grounding import SentenceGrounding
from textray.nn.bert import PUBLISHED, published_vocabulary
from textray.text.tokens import WordPiece, pad
from textray.training.checkpoints import facts_of, named_parts
from textray.training.grounding_losses import (
    Aggregate,
    Compared,
    Contrast,
    GroundingCriterion,
    GroundingLosses,
    Match,
    Mode,
    RightTexts,
    Temperatures,
    keys_of,
    rank_count,
    retrieval,
)
from textray.training.task import Task

Unit = Literal["word", "sentence", "report"]
Schedule = Literal["exponential", "cosine"]
_DECAY = 0.9  # of the exponential schedule after each epoch, the paper's
BATCH = 64
"""Pairs of texts in a step of the warm-up, and its learning rate."""
LR = 1e-3
_LOGGED = 100

log = logging.getLogger(__name__)


class GroundingTask(Task):
    """Trains a grounding network on films and the sentences of their reports.

    Logs ``train/loss`` with its parts ``train/global`` and ``train/local``, and on the inner split the same of batches
    as they come, and ``inner/retrieval``: the share of films whose own report is nearest to them of all the different
    reports of the split. No mask takes part, in learning or in selecting.

    Several processes give the loss and gradient of one with all their films, but for batch norms, which take the
    statistics of their own process (``trainer.sync_batchnorm`` on GPUs). The inner loss is that of one process's batch.

    Args:
        network: The network, built by its configuration.
        mode: Local loss of the ``paper`` or of the ``released`` code, see `textray.training.grounding_losses`.
        targets: Which texts are right for a film: its own (``diagonal``, the paper's); all that say the same
            (``identical_text``), since reports repeat and would be wrong answers to each other; or all that say nothing
            but what its own report says too (``entailed``, past the paper), since a shortened text is true of more
            films.
        local_unit: What places are compared with: ``sentence`` (the paper's), ``word`` or ``report``.
        aggregate: ``lse`` (the paper's), or ``lme``: long texts gain nothing.
        match: ``cosine`` (the paper's) or ``dot``, see `textray.training.grounding_losses`.
        contrast: ``softmax`` (the paper's) or ``sigmoid``, see `textray.training.grounding_losses`.
        global_weight: Weight of films against reports.
        local_weight: Weight of places against units.
        temperatures: Multipliers of the losses.
        schedule: ``exponential`` multiplies it by 0.9 after each epoch (the paper's); ``cosine`` falls to
            ``lr_final`` at the last step of the last epoch.
        text_lr_scale: The text encoder learns at this multiple of the rates; 0 leaves it as ``words_first`` made it.
        lr: Learning rate after the warm-up.
        weight_decay: AdamW's; at 0, the paper's, it is Adam.
        words_first: Steps of the text encoder's warm-up: it learns which texts say the same before it sees a film, see
            `textray.training.grounding.warm_up_text` (0 is the paper's).
        options: Those of `Task`; ``lr_final`` is of the cosine schedule, and an ``initial`` that is a whole checkpoint
            or bundle brings its vocabulary.

    Raises:
        UsageError: If a weight is negative, or both are zero.
    """

    selects = ("inner/loss", "min")
    network: SentenceGrounding

    def __init__(
        self,
        network: SentenceGrounding,
        mode: Mode = "paper",
        targets: RightTexts = "diagonal",
        local_unit: Unit = "sentence",
        aggregate: Aggregate = "lse",
        match: Match = "cosine",
        contrast: Contrast = "softmax",
        global_weight: float = 1.0,
        local_weight: float = 1.0,
        temperatures: Temperatures = Temperatures(),  # noqa: B008 -- frozen
        schedule: Schedule = "exponential",
        text_lr_scale: float = 1.0,
        words_first: int = 0,
        lr: float = 2e-5,
        weight_decay: float = 0.0,
        **options: Any,  # noqa: ANN401 -- declared by Task
    ) -> None:
        # The text encoder that learns is a part of the network.
        super().__init__(
            network,
            text_encoder=None,
            text_encoder_folder=None,
            max_tokens=0,
            lr=lr,
            weight_decay=weight_decay,
            **options,
        )
        self.criterion = GroundingCriterion(
            mode=mode,
            targets=targets,
            aggregate=aggregate,
            match=match,
            contrast=contrast,
            global_weight=global_weight,
            local_weight=local_weight,
            temperatures=temperatures,
        )
        self.local_unit = local_unit
        self.schedule, self.text_lr_scale = schedule, text_lr_scale
        self.words_first = words_first
        self.word_pieces: WordPiece | None = None
        self.most_pieces = network.config.text.sizes.positions
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []
        # Convolutions on CPUs like it, and images come so.
        network.trunk.to(memory_format=torch.channels_last)

    def setup(self, stage: str) -> None:
        """Read the tensors to start from, and give the data the vocabulary of the network.

        Raises:
            UsageError: If reports may be longer than the text encoder reads, the vocabulary is larger, or the initial
                weights may have seen excluded patients.
        """
        super().setup(stage)
        data = self.data
        if stage != "fit" or not isinstance(data, GroundingData):
            return
        if data.excluded is not None and self.trainer.ckpt_path is None:
            self._refuse_seen(data.excluded)
        sizes = self.network.config.text.sizes
        if data.most_pieces > sizes.positions:
            raise UsageError(
                "reports may be longer than the text encoder can read",
                came=f"data.most_pieces {data.most_pieces}",
                expected=f"at most {sizes.positions}",
            )
        words = self._vocabulary(data)
        if len(words) > sizes.pieces:
            raise UsageError(
                "the vocabulary has more pieces than the text encoder",
                came=len(words),
                expected=f"at most {sizes.pieces}",
            )
        self.word_pieces, self.most_pieces = WordPiece(words), data.most_pieces
        data.set_vocabulary(self.word_pieces)

    def on_fit_start(self) -> None:
        """Warm up the text encoder, if the recipe asks for it and the training is no resumed one."""
        if self.words_first > 0 and self.trainer.ckpt_path is None and isinstance(self.data, GroundingData):
            warm_up_text(self.network, self.data.sets["fit"], steps=self.words_first)

    def _refuse_seen(self, excluded: dict[str, str | int]) -> None:
        """Refuse to start from weights that do not record the same excluded patients."""
        for _, path in named_parts(self.initial):
            if facts_of(path).get("data", {}).get(RECORDED_AS) != excluded:
                raise UsageError(
                    "the weights to start from may have seen the patients that are left out",
                    came=path,
                    expected="a training with the same data.exclude",
                    do="Start from pretrained trunks, or train without data.exclude",
                )

    def _vocabulary(self, data: GroundingData) -> tuple[str, ...]:
        """Pieces of the initial checkpoint or bundle, of a published encoder, or of the data's captions."""
        text = self.network.config.text
        if isinstance(self.initial, str) and self.trainer.ckpt_path is None:
            whole = Path(self.initial)
            if (whole / "vocab.txt").is_file():  # a bundle
                return WordPiece.read(whole / "vocab.txt").vocabulary
            if words := facts_of(whole).get("vocabulary"):
                return tuple(words)
        if text.encoder == "own":
            return data.own_vocabulary(text.sizes.pieces)
        folder = None if text.weights in (None, PUBLISHED) else text.weights
        return published_vocabulary(text.encoder, folder=folder)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the vocabulary of the checkpoint.

        Raises:
            UsageError: If it is not one of a grounding training, or of one with other data.
        """
        super().on_load_checkpoint(checkpoint)
        words = checkpoint.get("textray", {}).get("vocabulary")
        if not words:
            raise UsageError("the checkpoint holds no vocabulary", expected="one of a grounding training")
        self.word_pieces = WordPiece(words)
        if self._trainer is not None and isinstance(self.data, GroundingData):
            self.data.set_vocabulary(self.word_pieces)

    def forward(self, batch: GroundingBatch) -> Compared:
        """Films and reports of a batch in the common space."""
        image = self.network.encode_image(batch["image"])
        text = self.network.encode_text(batch["ids"], batch["attention"], batch["word"], batch["sentence"])
        units, mask = {
            "word": (text.words, text.word_mask),
            "sentence": (text.sentences, text.sentence_mask),
            "report": (text.report[:, None], text.sentence_mask.any(1, keepdim=True)),
        }[self.local_unit]
        return Compared(image.pooled, image.local.flatten(2), text.report, units, mask, text.cls, batch["text"])

    def training_step(self, batch: GroundingBatch, index: int) -> Tensor:
        """Loss of the films of all processes, times the number of these, whose gradients are averaged."""
        losses = self.criterion(self(batch).gathered())
        self.check_loss(losses.total, cast(Any, batch), index)
        self._log("train", losses, len(batch["text"]))
        return losses.total * rank_count()

    def on_validation_epoch_start(self) -> None:
        """Start collecting."""
        self._seen = []

    def validation_step(self, batch: GroundingBatch, index: int) -> None:
        """Log the loss of a batch, keep what retrieval needs; each process sees the whole split."""
        compared = self(batch)
        self._log("inner", self.criterion(compared), len(batch["text"]))
        self._seen.append((compared.films.float().cpu(), compared.reports.float().cpu(), keys_of(batch["text"])))

    def on_validation_epoch_end(self) -> None:
        """Log the share of films whose nearest report is their own, or says the same."""
        films, reports, keys = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        self._seen = []
        self.log("inner/retrieval", retrieval(films, reports, keys), prog_bar=True)

    def _log(self, split: str, losses: GroundingLosses, count: int) -> None:
        for name, value in (("loss", losses.total), ("global", losses.whole), ("local", losses.local)):
            self.log(
                f"{split}/{name}", value, on_step=False, on_epoch=True, prog_bar=name == "loss", batch_size=count,
                sync_dist=split == "inner",
            )  # fmt: skip

    def groups(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        """Parameters that learn, those of the losses too, by their multiple of the learning rate."""
        scales = {"trunk": self.trunk_lr_scale, "text": self.text_lr_scale, "projection": self.text_lr_scale}
        groups: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(scales.get(name.partition(".")[0], 1.0), []).append(parameter)
        groups.setdefault(1.0, []).extend(self.criterion.parameters())
        return [(some, scale) for scale, some in groups.items()]

    def rate(self, step: int, total: int, warmup: int) -> float:
        """Multiple of the learning rate, by the schedule."""
        if self.schedule == "cosine" or step < warmup:
            return super().rate(step, total, warmup)
        return float(_DECAY ** (step // max(total // (self.trainer.max_epochs or 1), 1)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write beside the tensors what an export needs: vocabulary, aggregation to phrases, options of the loss."""
        super().on_save_checkpoint(checkpoint)
        config = self.network.config
        checkpoint["textray"] |= {
            "task": "grounding",
            "text_encoder": config.text.encoder,
            "vocabulary": list(self.word_pieces.vocabulary) if self.word_pieces is not None else [],
            "lower": True,
            "most_pieces": self.most_pieces,
            "aggregation": {"piece": "sum", "word": config.agg_word, "sentence": "mean"},
            "mode": self.criterion.mode,
            "targets": self.criterion.targets,
            "local_unit": self.local_unit,
            "match": self.criterion.match,
            "contrast": self.criterion.contrast,
        }


# Warm-up of a text encoder that starts at random.


def warm_up_text(network: SentenceGrounding, data: GroundingSet, *, steps: int) -> float:
    """Train the text encoder of a network on pairs of texts, in place, before it sees a film.

    The text encoder, and what stands between it and the common space, learn in ``steps`` of ``BATCH`` pairs: the cosine
    of two texts is brought to the share of facts that they have in common. Where films get texts of one zone at a time,
    whole captions are among the texts too, so that the encoder can read them. Sides are swapped in half of the texts
    that allow it. The seed of the data decides the result; the state of torch's generator is left as it was.

    Returns:
        The last root mean square difference of cosine and share of facts, 0 for no step.

    Raises:
        UsageError: If the data have no vocabulary, or nothing of the text encoder learns.
    """
    parts = torch.nn.ModuleList([network.text, network.projection])
    learning = [parameter for parameter in parts.parameters() if parameter.requires_grad]
    if not learning:
        raise UsageError("the text encoder is frozen", do="Shorten model.freeze, or set model.words_first to 0")
    optimizer = torch.optim.AdamW(learning, lr=LR, weight_decay=0.01)
    training, error = network.text.training, 0.0
    parts.train()
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            torch.manual_seed(int(np.random.SeedSequence((data.seed, 2, step)).generate_state(1)[0]))
            rng = np.random.default_rng((data.seed, 3, step))
            drawn = [(int(index), rng.random() < 0.5) for index in rng.integers(0, len(data), BATCH)]
            (one, facts), (other, other_facts) = (_draw_texts(network, data, drawn, rng) for _ in range(2))
            loss = F.mse_loss(one @ other.T, shares(facts, other_facts).to(one.device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            error = float(loss.detach()) ** 0.5
            if (step + 1) % _LOGGED == 0:
                log.info("words, step %d of %d: off by %.3f", step + 1, steps, error)
    optimizer.zero_grad()
    parts.train(training)
    return error


def shares(statements: list[StudyText], other: list[StudyText]) -> Tensor:
    """Facts in common as a share of the geometric mean of both numbers: ``(len(statements), len(other))`` in [0, 1].

    That is the cosine of sums of one direction a fact: the vector of several places is the sum of theirs.
    """
    return torch.tensor(
        [[len(a.facts & b.facts) / max((len(a.facts) * len(b.facts)) ** 0.5, 1) for b in other] for a in statements]
    )


def _draw_texts(
    network: SentenceGrounding, data: GroundingSet, drawn: list[tuple[int, bool]], rng: np.random.Generator
) -> tuple[Tensor, list[StudyText]]:
    """Vectors ``(B, D)`` of length one of texts about studies, and their statements."""
    sampling: SentenceSampling | None = "some_zones" if data.words.sampling == "one_zone" else None
    texts = [
        data.draw_text(index, rng, mirrored=turned and data.words.can_mirror(index), sampling=sampling)
        for index, turned in drawn
    ]
    batch, device = pad([pieces for pieces, _ in texts]), next(network.text.parameters()).device
    tensors = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.attention, batch.word, batch.sentence))
    return F.normalize(network.encode_text(*tensors).report.float(), dim=1, eps=1e-8), [
        statement for _, statement in texts
    ]

"""A fake QaTa-COV19 in the published layout, and rows of tables that train nothing.

- ``make_qata(folder, bright=0)`` builds a fake; ``qata`` is one with dim films.
- ``quick_rows``: no row trains or exports; ``.made`` holds the arguments of each training.
"""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
from textray.errors import UsageError  # noqa: E402
from textray.inference.grounding_bundle import GroundingBundle  # noqa: E402
from textray.reproduce import fit, grounding_qata, runner  # noqa: E402

WORDS = {"lower left": (slice(40, 60), slice(5, 25)), "upper right": (slice(5, 20), slice(35, 55))}


@pytest.fixture(scope="session")
def make_qata():
    """Build a fake, 64 x 60, each mask where its caption says; the val rows are the last fifth.

    ``bright`` is added to the film where its lesion is.
    """

    def make(folder, bright=0):
        root = folder / "QaTa-COV19-v2"
        for part in ("Images", "Ground-truths"):
            (root / "Train Set" / part).mkdir(parents=True)
        (root / "prompt").mkdir()
        rng, rows = np.random.default_rng(0), []
        for i in range(20):
            name = f"sub-S{10000 + i}_ses-E{i}_run-1_bp-chest_vp-ap_dx"
            place = list(WORDS)[i % 2]
            mask = np.zeros((64, 60), np.uint8)
            mask[WORDS[place]] = 255
            film = rng.integers(0, 30, (64, 60), np.uint8) + (mask > 0) * np.uint8(bright)
            PILImage.fromarray(film).save(root / f"Train Set/Images/{name}.png")
            PILImage.fromarray(mask).save(root / f"Train Set/Ground-truths/mask_{name}.png")
            rows.append((f"mask_{name}.png", f"unilateral pulmonary infection, one infected area, {place} lung."))
        with (root / "prompt/train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("Image", "Description"), *rows])
        return root

    return make


@pytest.fixture
def qata(make_qata, tmp_path):
    """A fake whose films do not show their lesions."""
    return make_qata(tmp_path)


class QuickRows:
    """Rows of tables without training and export: each leaves what a real one does, and tiny weights are scored.

    Attributes:
        made: Arguments of every training, in order.
        refused: A training whose arguments hold this word fails.
    """

    def __init__(self, tiny, writing, grounding):
        self.made, self.refused = [], "no such word"
        self._bundles = {"sgseg": writing, "sentence": grounding}
        self._other = tiny

    def train(self, words, threads):
        """Leave checkpoints, the clock and, where they would be, pseudo-labels."""
        self.made.append(list(words))
        if self.refused in "\n".join(words):
            raise UsageError("data.paraphrase is wrong")
        run, epochs = Path(words[words.index("--out") + 1]), int(_value(words, "trainer.max_epochs"))
        (run / "checkpoints").mkdir(parents=True)
        for name in ("last", "best"):
            (run / "checkpoints" / f"{name}.ckpt").write_text("\n".join(words))
        if "--task=semi_supervised" in words:
            (run / "pseudo_labels").mkdir()
        (run / "clock.json").write_text(json.dumps({"seconds": dict.fromkeys(map(str, range(epochs)), 1.5),
                                                    "steps": 2 * epochs}))  # fmt: skip

    def export(self, checkpoint, folder, **options):
        """The bundle that stands for a row's own; it knows what the training was told."""
        words, row = checkpoint.read_text().splitlines(), checkpoint.parents[2].name
        images = int(8 * float(_value(words, "data.train_fraction", "1")))
        about = {"images": {"fit": images, "inner": 2}}
        made = next((made for start, made in self._bundles.items() if row.startswith(start)), self._other)
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(made, folder)
        if made is self._bundles["sentence"]:
            bundle = GroundingBundle.load(folder)
            facts = {"mode": "paper", "targets": "identical_text"}
            facts["local_unit"] = _value(words, "model.local_unit", "sentence")
            return replace(bundle, provenance=bundle.provenance | facts | {"data": about, "epoch": 1})
        return SimpleNamespace(folder=folder, provenance={"data": about, "epoch": 1})


def _value(words, option, default=None):
    found = [word.partition("=")[2] for word in words if word.startswith(f"--{option}=")]
    return found[-1] if found else default


@pytest.fixture
def quick_rows(monkeypatch, tiny_bundle, writing_bundle, grounding_bundle):
    """No row trains or exports; evaluations, records and pages are real: a `QuickRows`."""
    quick = QuickRows(tiny_bundle, writing_bundle, grounding_bundle)
    monkeypatch.setattr(fit, "_train", quick.train)
    monkeypatch.setattr(runner, "export", quick.export)
    monkeypatch.setattr(runner, "cost_of_bundle", lambda bundle: SimpleNamespace(trainable=1_234_567, gmacs=0.25))
    monkeypatch.setattr(grounding_qata, "export_grounding", quick.export)
    network = torch.nn.Linear(2, 3)
    monkeypatch.setattr(grounding_qata, "read_checkpoint", lambda path: (None, network))
    return quick

"""Golden tests that need torch: `textray train`, checkpoints that are refused, and the trainings behind the tables.

See `test_outputs.py` for what golden tests are and how to record them.
"""

import csv
import json
import re
import tarfile
from importlib import import_module
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]  # a training in this process says what a user sees

RESULTS = Path(__file__).parents[2] / "docs" / "results"
TASKS = ("segmentation", "semi_supervised", "contrastive", "grounding")


@pytest.fixture
def train(train, tmp_path, monkeypatch):
    """Run ``textray train`` in a folder of its own, on one thread: more would add in another order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield train
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", TASKS)
def test_options_of_train(task, train, golden, monkeypatch):
    """Names, choices and defaults of the options that are TextRay's own."""
    monkeypatch.setenv("COLUMNS", "1000")
    result = train(f"--task={task}", "--help")
    assert result.code == 0
    found = {}
    for option in re.split(r"\n +(?=--)", result.out):
        words = " ".join(option.split("\n\n")[0].split())
        name = re.match(r"--(?:data|model|task|checkpoint|stopping|seed_everything)[\w.]*", words)
        if name:
            choices = re.match(r"\S+ (\{[^}]*\})", words)
            default = words.rpartition("default: ")[2].removesuffix(")").split(", known subclasses")[0]
            parts = [choices[1]] if choices else []
            parts += [f"default {default}"] if "default: " in words else ["required"] if "(required" in words else []
            found[name[0]] = ", ".join(parts)
    golden(f"train: options of {task}", found)


REFUSED = {
    "no configuration": ["train"],
    "unknown recipe": ["train", "--config", "mmi_unet_light"],
    "unknown override": ["train", "--config", "mmi_unet_lite", "--data.foo=1"],
    "wrong value": ["train", "--config", "mmi_unet_lite", "--data.normalise=softly"],
    "root of unknown data": ["reproduce", "mmi-unet-table2", "--root", "qata=out"],
    "import of no checkpoint": ["import", "mmi_unet", "file.pt", "--text-encoder", "encoder", "--out", "out"],
    "import without text encoder": ["import", "mmi_unet", "file.pt", "--out", "out"],
    "import of nothing": ["import", "mmi", "file.pt", "--out", "out"],
    "export of no checkpoint": ["export", "file.pt", "--out", "out"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, train, cli, tmp_path, read, golden):
    (tmp_path / "file.pt").write_text("no checkpoint")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    (tmp_path / "encoder/vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    result = cli(*REFUSED[name])
    said = [line for line in read.lines(result.err) if line.startswith(("error", "warning"))]
    assert result.code != 0
    golden(f"refused: {name}", {"code": result.code, "out": read.lines(result.out), "err": said}, tmp_path)


SHARED = """\
trainer: {enable_progress_bar: false, max_epochs: 2, log_every_n_steps: 1}
data:
  data: qata_cov19
  size: [32, 32]
  normalise: percentile
  batch_size: 4
  workers: 0
"""
NETWORK = """\
model:
  text_encoder: {encoder}
  lr: 1.0e-3
  network:
    class_path: textray.models.{path}
    init_args:
      config: {config}
"""
DECODER = "{trunk: efficientnet_lite0, text_width: 32, decoder_channels: [8, 8, 8]}"
RECIPES = {
    "unet": NETWORK.format(encoder="null", path="baselines.unet.UNet", config="{width: 4}"),
    "mmi_unet": NETWORK.format(encoder="tiny", path="mmi_unet.MMIUNet", config=DECODER),
    "lvit": NETWORK.format(encoder="tiny", path="lvit.LViT", config="{channels: 8, size: [32, 32], text_width: 32}"),
    "sgseg_simple": NETWORK.format(
        encoder="tiny",
        path="sgseg.SGSegSimple",
        config="{locator: {trunk: efficientnet_lite0, width: 8}, tokens: 40, guide_decoder: {tokens: 40, "
        "text_width: 32, trunk: efficientnet_lite0, decoder_channels: [8, 8, 8], mixed_tokens: [4, 4, 4]}}",
    )
    + "  zone_weight: 1.0\n  max_tokens: 40\n",
    "sentence_grounding": """\
task: grounding
model:
  network:
    class_path: textray.models.sentence_grounding.SentenceGrounding
    init_args:
      config:
        trunk: convnext_atto
        enlarge: null
        width: 32
        text:
          encoder: own
          last_layers: 1
          own: {pieces: 512, width: 32, layers: 1, heads: 2, feed_forward: 64, positions: 97}
""",
}
TRAININGS = {
    "unet": ["--data.augment=light"],
    "mmi_unet": ["--data.augment=sgseg", "--data.report_dropout=0.5", "--data.report_withheld=0.5"],
    "lvit": ["--data.augment=light", "--model.loss=lvit_wdbce"],
    "sgseg_simple": ["--data.augment=paper", "--data.report_dropout=0.5", "--model.self_guided=0.5"],
    "sentence_grounding": ["--data.augment=flips", "--data.paraphrase=0.5"],
}


def curves(folder):
    """What a training logged, line by line, to four digits."""
    (path,) = folder.glob("log/version_*/metrics.csv")
    with path.open(newline="") as file:
        logged = [{name: value for name, value in line.items() if value} for line in csv.DictReader(file)]
    return [{name: float(f"{float(value):.4g}") for name, value in line.items()} for line in logged]


@pytest.mark.parametrize("name", TRAININGS)
def test_training(name, train, phantom_root, tmp_path, golden):
    """Losses and scores of two epochs: the data's order, the augmentations and the optimiser in one."""
    (tmp_path / "recipe.yaml").write_text(SHARED + RECIPES[name])
    result = train("--config", "recipe.yaml", f"--data.root={phantom_root}", "--out=out", *TRAININGS[name])
    assert result.code == 0, result.err
    golden(f"training: {name}", curves(tmp_path / "out"), tmp_path / "out")


def test_training_without_masks(train, phantom_root, tmp_path, golden):
    """A teacher on a part of the masks, then a training that learns from the other films without."""
    (tmp_path / "recipe.yaml").write_text(SHARED + RECIPES["lvit"])
    words = ["--config", "recipe.yaml", f"--data.root={phantom_root}", "--data.labelled_fraction=0.5"]
    assert train(*words, "--out=teacher").code == 0
    words += ["--task=semi_supervised", "--model.teacher=teacher/checkpoints/best.ckpt", "--model.beta=0.9"]
    result = train(*words, "--out=out")
    assert result.code == 0, result.err
    golden("training: without masks", curves(tmp_path / "out"), tmp_path / "out")


def kept_ids():
    """Data set → the ids that its trainings were made with, from the rows that are kept."""
    found = {}
    with tarfile.open(RESULTS / "lvit-rows.tar.gz") as archive:
        for member in archive:
            if member.name.endswith("settings.json"):
                settings = json.load(archive.extractfile(member))
                (data,) = (word for word in settings["arguments"] if word.startswith("--data.data="))
                found[data.removeprefix("--data.data=")] = settings["ids"]
    return found


def test_trainings_of_the_committed_tables(inside, golden):
    """Hash of each training whose score is committed, computed anew: another hash means hours of training again.

    ``table`` says whether it is still the one in ``table.csv``; recipes of grounding have changed since its table.
    """
    ids = kept_ids()
    for path in sorted(RESULTS.glob("*/table.csv")):
        name, _, budget = path.parent.name.rpartition("-")
        found = {}
        for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            key = f"{line['row']}, {line['data']}, seed {line['seed']}"
            if line.get("settings") and key not in found:
                data = {"data": line["data"], "split": line["split"], "ids": ids[line["data"]]}
                made = inside.job_hash(name, budget, line["row"], seed=int(line["seed"]), **data)
                found[key] = {"hash": made, "table": made == line["settings"]}
        assert found
        golden(f"trainings: {path.parent.name}", found)


def test_recipes_name_classes_that_are_there():
    recorded = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))["recipes"]
    paths = {path for recipe in recorded.values() for path in recipe["classes"]}
    assert len(paths) > 5
    for path in paths:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type), path

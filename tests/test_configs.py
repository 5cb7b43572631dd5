"""Every committed recipe: parsed as `textray train` parses it, and free of what is the default anyway."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

pytest.importorskip("lightning")
from textray.training import cli as training

RECIPES = sorted(training.recipes())
NETWORKS = {"mmi_unet": "textray.models.mmi_unet.MMIUNet", "unet": "textray.models.baselines.unet.UNet"}
CONFIG = "model.network.init_args.config"
SEGMENTERS = ("guide_decoder", "mmi_unet")
"""Parts of a self-guided network's config of which one is there; what it does not say are that part's defaults."""
NAMING = ("task", "data.data", "model.network.class_path", *(f"{CONFIG}.{part}" for part in SEGMENTERS))
"""Keys that say what a recipe is about; they may repeat a default."""


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """Write a recipe that names a network only: ``bare(tree) -> path``, the same for equal trees."""
    folder, known = tmp_path_factory.mktemp("bare"), {}

    def write(tree):
        words = yaml.safe_dump(tree)
        if words not in known:
            known[words] = folder / f"{len(known)}.yaml"
            known[words].write_text(words)
        return str(known[words])

    return write


def leaves(tree, prefix=""):
    """Dotted key and value of everything that is set."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def read(name):
    return yaml.safe_load(training.recipes()[name].read_text(encoding="utf-8"))


def alone(name):
    """Arguments that make a whole training of a recipe that may be a part of one."""
    network = [] if "network" in (read(name).get("model") or {}) else ["--config", "model/mmi_unet"]
    return ["--config", name, *network]


def test_the_recipes_are_found():
    folder = Path(training.__file__).parent.parent / "configs"
    tables = folder / "reproduce/tables.yaml"  # what `textray reproduce` makes of recipes
    assert {folder / f"{name}.yaml" for name in RECIPES} == set(folder.rglob("*.yaml")) - {tables}
    assert {"mmi_unet_qata", "mmi_unet_lite"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_parsed_and_means_what_it_says(name, parse):
    found = dict(leaves(parse(*alone(name))))
    for key, value in leaves(read(name)):
        assert found[key] == value, key


ON_TOP = {
    "mmi_unet_lite_224_first": "mmi_unet_lite",
    "mmi_unet_lite_224": "mmi_unet_lite",
    "sgseg_lite_last": "sgseg_lite",
    "sgseg_lite_healthy": "sgseg_lite_presence",
    "reproduce/small_grounding": "sentence_grounding_qata",
    "reproduce/small_grounding_places": "sentence_grounding_qata",
}
"""Recipes that only make sense behind another: they must differ from that one, not from the defaults."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_only_what_differs_from_the_defaults(name, parse, bare):
    recipe = read(name)
    given = recipe.get("model", {}).get("network", {})
    network = {"class_path": given.get("class_path", NETWORKS["mmi_unet"])}
    parts = given.get("init_args", {}).get("config", {})
    chosen = {part: None if parts[part] is None else {} for part in SEGMENTERS if part in parts}
    if chosen:
        network["init_args"] = {"config": chosen}
    about = {"task": recipe["task"]} if "task" in recipe else {}  # decides which other values there are
    below = ("--config", ON_TOP.get(name) or bare(about | {"model": {"network": network}}))
    defaults = dict(leaves(parse(*below)))
    # A part that is null by default has no fields to repeat.
    repeated = [k for k, value in leaves(recipe) if k not in NAMING and k in defaults and defaults[k] == value]
    assert not repeated, f"{name} repeats defaults"


def test_later_recipes_and_options_win(parse):
    found = parse(
        "--config", "mmi_unet_lite", "--config", "data/phantom", "--trainer.max_epochs", "2", "--model.lr=5e-4"
    )
    assert found["data"]["data"] == "phantom"
    assert found["data"]["size"] == [64, 64]
    assert found["data"]["report_dropout"] == read("mmi_unet_lite")["data"]["report_dropout"]
    assert found["trainer"]["max_epochs"] == 2
    assert found["model"]["lr"] == 5e-4
    assert found["model"]["network"]["init_args"]["config"]["skip"] == "sum"


def test_the_paper_recipe_is_the_networks_default(parse):
    from textray.models.mmi_unet import MMIUNetConfig

    config = parse("--config", "mmi_unet_qata")["model"]["network"]["init_args"]["config"]
    assert config == dataclasses.asdict(MMIUNetConfig(trunk_weights="hub"))


@pytest.mark.parametrize("name", [n for n in RECIPES if "network" in (read(n).get("model") or {})])
def test_a_recipe_stops_and_selects_on_what_its_network_logs(name, parse):
    found = parse("--config", name)
    model, logged = found["model"], {"inner/loss"}
    if model.get("segment", True) and found["task"] in ("segmentation", "semi_supervised"):
        logged |= {"inner/dice", "inner/dice_none"}
        if model["text_encoder"] is not None:
            logged |= {"inner/dice_oracle", "inner/dice_mean"}
    if ".sgseg." in model["network"]["class_path"]:
        logged |= {"inner/zones_f1"} | ({"inner/dice_generated"} if model["segment"] else set())
        if model["network"]["init_args"]["config"]["presence"] and found["data"]["beside"] is not None:
            logged |= {"inner/presence_auc"}
    assert found["checkpoint"]["monitor"] in logged
    assert found["stopping"]["monitor"] in logged


@pytest.mark.parametrize("words", [["sgseg_lite_presence", "--model.initial", "sgseg_lite"], ["finetune"]])
def test_the_weights_inside_start_what_follows_them(words, parse):
    """The command in the recipes' headers, up to the first step."""
    from textray import registry
    from textray.inference.bundle import WEIGHTS_FOLDER, inside
    from textray.models.build import build
    from textray.training.checkpoints import begin, read_network

    if "sgseg_lite" not in inside():
        pytest.skip("the weights are not inside this installation")
    model = parse("--config", *words)["model"]
    network = build(registry.model("sgseg").form("paper"), model["network"]["init_args"]["config"])
    begin(network, model["initial"])
    found = network.state_dict()
    given = read_network(WEIGHTS_FOLDER / "sgseg_lite")
    assert all(found[name].equal(value) for name, value in given.items())
    assert words != ["finetune"] or found.keys() == given.keys()  # nothing at random
    for part in model["freeze"]:
        network.get_submodule(part)


def test_tensorboard_joins_the_csv_log(parse):
    # The CSV log is no option: tests/training asserts that it is written whatever loggers are asked for.
    found = parse(
        "--config", "mmi_unet_lite", "--trainer.logger+=TensorBoardLogger", "--trainer.logger.save_dir=textray-runs/tb"
    )
    assert [row["class_path"].rpartition(".")[2] for row in found["trainer"]["logger"]] == ["TensorBoardLogger"]

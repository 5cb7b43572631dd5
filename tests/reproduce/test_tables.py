"""Tables as data: read strictly, printed as in the papers, planned as `textray train` trains them, hashes that stay."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lightning")
from textray.errors import UsageError
from textray.reproduce import REPRODUCTIONS, Order, plan, runner
from textray.reproduce.plan import Source, State, merged, open_source, plan_job, plan_row
from textray.reproduce.tables import FILE, Table, read_tables

ROOT = Path(__file__).parents[2]
PAPER = ROOT.parent / "shared" / "papers" / "mmi-unet.txt"
TABLES = read_tables()
TRAINED = [table for table in TABLES.values() if isinstance(table, Table)]
IDS = {"fit": "a", "inner": "b", "val": "c"}
QATA = Source(name="qata_cov19", root=Path("x"), split="val", ids=IDS)
IMAGES = 5160  # of QaTa-COV19's `fit`, about


def row_of(table, name):
    (row,) = [row for row in TABLES[table].rows if row.name == name]
    return row


def job_of(table, name, *, budget="small", seed=0):
    return plan_job(row_of(table, name), QATA, seed, TABLES[table].budget(budget))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    title: LViT against UNet on Mo", "    titel: LViT on Mo", r"key of tables.tables\[7\] 'titel'"),
        ("    title: LViT against UNet on MoNuSeg\n", "", "a key title"),
        ("epochs: 160", 'epochs: "160"', "epochs is wrong"),
        ("text: none, printed: Without", "text: nothing, printed: Without", "text is wrong"),
        ("most_repeats: 4.0", "most_repeats: four", "most_repeats is wrong"),
        ("79.02 / 69.46", "79.02", "scores.qata_cov19 is wrong"),
        ("{first: unet, second: lvit,", "{first: unte, second: lvit,", "row in a question of lvit-qata 'unte'"),
        ("{name: att_unet, label: AttUNet", "{name: unet, label: AttUNet", "rows of mmi-unet-table1 have one name"),
        ("  - name: lvit-qata", "  - name: lvit-monuseg", "tables have one name"),
        ("    epochs: 160", "    epochs: 160\n    epochs: 161", "doubled: epochs"),
        ("weights:\n", "weight: []\nweights:\n", "unknown key of tables 'weight'"),
    ],
)
def test_a_wrong_file_is_refused(old, new, words, tmp_path):
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "tables.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=words):
        read_tables(path)


def test_every_table_has_a_name_for_the_command_line_and_every_printed_row_one_of_ours():
    assert {name for name, path in REPRODUCTIONS.items() if path.endswith("runner:run")} == set(TABLES)
    for table in TRAINED:
        beside = [row.printed for row in table.rows if row.printed]
        missing = {row.label for row in table.printed} - set(beside)
        assert missing == ({"UNet"} if table.name == "lvit-ablation" else set()), table.name
        assert all(table.printed_row(row) for row in table.rows if row.printed) or not table.printed
        assert all(row.mode in row.modes for row in table.rows)
    assert not TABLES["lvit-monuseg"].printed, "no IoU of it is known, so nothing is printed beside ours"
    assert str(TABLES["lvit-qata"].printed_row(row_of("lvit-qata", "lvit")).scores["qata_cov19"]) == "83.66 / 75.11"


def numbers(row):
    sizes = [value for value in (row.parameters, row.flops) if value is not None]
    return sizes + [v for data in ("qata_cov19", "mosmed_plus") for v in (row.scores[data].dice, row.scores[data].iou)]


def test_printed_numbers_are_those_of_the_paper():
    one, two, three = (TABLES[f"mmi-unet-table{n}"].printed for n in (1, 2, 3))
    sums = [round(sum(column), 2) for column in zip(*map(numbers, one), strict=True)]
    assert sums == [919.7, 1337.6, 1296.79, 1150.15, 1140.36, 932.44]
    rows = {row.label: row for row in one}
    assert two[1].scores == three[4].scores == rows["MMI-UNet"].scores
    assert three[0].scores == rows["nnUNet"].scores
    if not PAPER.is_file():
        pytest.skip("the paper's text is not on this machine")
    lines = [re.sub(r"<[^>]+>", "", line).split("\t") for line in PAPER.read_text(encoding="utf-8").splitlines()]
    numbered = [(cells[0], [float(c) for c in cells if re.fullmatch(r"[\d.]+", c)]) for cells in lines]
    printed = [(re.sub(r" \[\d+\]", "", label), values) for label, values in numbered if len(values) > 3]
    assert [(row.label, numbers(row)) for row in (*one, *two, *three)] == printed


def test_sizes_are_those_of_the_page_about_cost():
    page = (ROOT / "docs" / "how-to" / "cost.md").read_text(encoding="utf-8")
    sizes = re.findall(r"^\| ([^|]+) \| [\d.]+ \| ([\d.]+) \| [\d.]+ \| ([\d.]+|none) \|$", page, re.MULTILINE)
    shown = {label.removesuffix(", released"): columns for label, *columns in sizes}
    printed = {row.label: row for row in TABLES["mmi-unet-table1"].printed}
    for label, row in {"MMI-UNet": "MMI-UNet", "GuideDecoder": "GuideDecoder", "U-Net": "UNet", "LViT": "LViT"}.items():
        assert shown.pop(label) == [str(printed[row].parameters), str(printed[row].flops)]
    assert shown == {"MMI-UNet with GuideDecoder": [str(TABLES["mmi-unet-table2"].printed[0].parameters), "none"]}


@pytest.mark.parametrize(
    ("budget", "table", "row", "seed", "start"),
    [
        ("small", "mmi-unet-table2", "mmi_unet", 0, "bf426430883a80367997f0ea"),
        ("small", "mmi-unet-table2", "mmi_unet_gd", 1, "74a240289fc70e3072770af3"),
        ("small", "mmi-unet-table3", "mmi_unet-15", 0, "2b1d0886786597223780cab2"),
        ("small", "mmi-unet-table3", "mmi_unet-without-text", 0, "81225619082b306922e70190"),
        ("full", "mmi-unet-table1", "unet", 0, "73c923d79107a37eca23fccaa714"),
        ("small", "sgseg-table2", "lerg", 0, "96835a17f0a8b882290029b6"),
        ("small", "sgseg-table2", "clip", 1, "de6615cd38bdc911a7f52fc8"),
        ("full", "sgseg-table2", "soft_zones", 0, "fb42dabf321ce9d3d3a2acbe"),
    ],
)
def test_rows_that_were_made_before_are_found_again(budget, table, row, seed, start, monkeypatch):
    """Hours of training hang on these; another hash means another recipe, never another way to write it down."""
    monkeypatch.setattr(plan, "__version__", "0.1.0")
    job = job_of(table, row, budget=budget, seed=seed)
    assert job.hash.startswith(start)
    assert job.folder.endswith(f"seed{seed}-{start[:8]}")


@pytest.mark.parametrize("table", TRAINED, ids=lambda table: table.name)
def test_every_row_is_planned_as_textray_trains_it(table, parse):
    wanted = {"guide_decoder": "GuideDecoder", "sgseg": "SGSeg", "sgseg_simple": "SGSegSimple", "lvit": "LViT",
              "mmi_unet": "MMIUNet", "mmi_unet_gd": "MMIUNetGD", "unet": "UNet",
              "sentence_grounding": "SentenceGrounding", "unet_plus_plus": "UNetPlusPlus", "nnunet": "NNUNet",
              "attention_unet": "AttentionUNet", "transunet": "TransUNet", "uctransnet": "UCTransNet",
              "swin_unet": "SwinUNet", "clip": "CLIP", "clip_text": "CLIPText", "gloria": "GLoRIA", "tganet": "TGANet",
              "convirt": "ConVIRT", "vilt": "ViLT", "lavt": "LAVT"}  # fmt: skip
    seen = set()
    for budget in table.budgets:
        for row in table.rows:
            for job in plan_row(row, table.data[0], replace(QATA, name=table.data[0]), [1], budget):
                if isinstance(job, plan.JobResult) or job.hash in seen:
                    continue
                seen.add(job.hash)
                config = parse(*job.words)
                network, semi = config["model"]["network"], row.labelled < 1
                assert network["class_path"].endswith(f".{wanted[row.model]}")
                assert config["data"]["data"] == table.data[0]
                task = "grounding" if table.texts.scores == "phrases" else "segmentation"
                assert config["task"] == ("semi_supervised" if semi else task)
                if row.model == "lvit":
                    assert network["init_args"]["config"]["size"] == config["data"]["size"]
                    assert network["init_args"]["config"]["tokens"] >= config["model"]["max_tokens"]
                assert config["data"].get("labelled_fraction", 1) == row.labelled
                drawn = min(row.fraction, row.labelled) < 1
                assert config["data"].get("fraction_seed", 0) == (job.seed if drawn else 0)
                assert all((key in config["model"]) == semi for key in ("beta", "epi", "lv_weight"))
    assert seen


def test_tables_share_rows():
    names = ("lvit", "without_text", "unet")
    shared = {name: job_of("lvit-qata", name).hash for name in names}
    for table, known in (("lvit-ablation", names[:2]), ("mmi-unet-table1", ("lvit", "unet"))):
        assert all(job_of(table, name).hash == shared[name] for name in known)
    assert job_of("lvit-ablation", "small").hash == shared["lvit"]
    full = [job_of("lvit-ablation", name, budget="full").hash for name in ("base", "lvit")]
    assert full[0] == full[1]
    every = {row.name: job_of("lvit-ablation", row.name).hash for row in TABLES["lvit-ablation"].rows}
    assert len(set(every.values())) == len(every) - 1, "only small and LViT's own row are one"
    lerg, full_text, no_report = (job_of("sgseg-table2", name) for name in ("lerg", "full_text", "silent"))
    assert lerg.folder == full_text.folder == no_report.folder
    assert [job.row.mode for job in (lerg, full_text, no_report)] == ["generated", "oracle", "none"]
    with_stage, alone = (job_of("sgseg-table2", name) for name in ("clip", "without_text"))
    assert alone.before is None
    assert with_stage.hash != alone.hash
    assert with_stage.before.folder.startswith("contrastive-guide_decoder-qata_cov19-seed0-")
    assert "--model.initial=[trunk=CHECKPOINT]" in with_stage.command


def steps(job):
    """Optimiser steps of a job on QaTa-COV19, about."""
    (epochs,) = [int(word.partition("=")[2]) for word in job.arguments if word.startswith("--trainer.max_epochs")]
    return epochs * int(IMAGES * job.row.fraction / 32)


def test_sizes_keep_their_ratio_and_rows_their_steps():
    table = TABLES["lvit-ablation"]
    for budget in table.budgets:
        recipes = (merged((budget.networks[f"lvit_{size}"],)) for size in ("tiny", "small", "base"))
        networks = (recipe["model"]["network"] for recipe in recipes)
        tiny, small, base = (n.get("init_args", {}).get("config", {}).get("channels", 64) for n in networks)
        assert (small, base) == (2 * tiny, 4 * tiny)
    jobs = {row.name: plan_job(row, QATA, 2, table.budget("small")) for row in table.rows}
    every = {name: steps(job) + (steps(job.before) if job.before else 0) for name, job in jobs.items()}
    assert every.pop("teacher_25") < 0.5 * every["lvit"]
    assert max(every.values()) - min(every.values()) <= 10, every
    pupils = [job for job in jobs.values() if job.row.teacher is not None]
    assert {job.before.hash for job in pupils} == {jobs["teacher_25"].hash}, "one teacher, and it is a row"
    assert {job.settings["before"] for job in pupils} == {jobs["teacher_25"].hash}
    assert {"--data.train_fraction=0.25", "--data.fraction_seed=2"} <= set(jobs["teacher_25"].words)
    small, full = (TABLES["mmi-unet-table3"].budget(name) for name in ("small", "full"))
    assert [small.epochs_of(f) for f in (1.0, 0.5, 0.25, 0.15)] == [7, 14, 28, 28]
    assert {full.epochs_of(f) for f in (1.0, 0.15)} == {100}


def test_rows_without_text_learn_and_select_without_and_rows_may_have_other_seeds():
    words = job_of("lvit-qata", "without_text").words
    assert {"--data.report_dropout=1.0", "--checkpoint.monitor=inner/dice_none"} <= set(words)
    assert "--stopping.monitor=inner/dice_none" in words
    row = row_of("lvit-ablation", "epi_25")
    for more, of, seeds in ((1, 2, [0, 1, 2]), (0, 2, [0, 1]), (-1, 2, [0]), (-1, 1, [0])):
        assert list(replace(row, more_seeds=more).seeds_of(range(of))) == seeds


def test_the_segmenter_of_every_row_of_sgseg_is_the_same():
    for budget in TABLES["sgseg-table2"].budgets:
        alone = merged((budget.networks["guide_decoder"],))["model"]["network"]["init_args"]["config"]
        for name in ("sgseg", "sgseg_simple"):
            config = merged((budget.networks[name],))["model"]["network"]["init_args"]["config"]
            assert config["guide_decoder"] == alone


def test_rows_of_grounding_differ_in_what_they_are_named_for(qata):
    source, table = open_source("qata_cov19", qata), TABLES["grounding-qata"]
    for budget in table.budgets:
        rows = [row for row in table.rows if (row.recipe or row.model) in budget.networks]
        assert [row.name for row in table.rows if row not in rows] == (["places"] if budget.name == "full" else [])
        jobs = [plan_job(row, source, 0, budget) for row in rows]
        assert len({job.hash for job in jobs}) == len(jobs)
        assert all(f"-{job.row.name}-" in job.folder for job in jobs)
        if budget.name == "small":  # the recipe of the weights inside, at the others' pixels
            places = merged(jobs.pop().recipes)
            assert (places["model"]["contrast"], places["data"]["sentence_sampling"]) == ("sigmoid", "one_zone")
            assert places["data"]["size"] == merged(jobs[0].recipes)["data"]["size"] == [128, 128]
        for job in jobs:
            assert set(job.words) - set(jobs[0].words) == set(job.row.arguments)
            assert len(job.row.arguments) <= 1
        tree = merged(jobs[0].recipes)
        assert tree["model"]["targets"] in ("entailed", "identical_text"), "captions repeat"
        for key, paper in (("match", "cosine"), ("contrast", "softmax"), ("global_weight", 1.0)):
            assert tree["model"].get(key, paper) == paper


def test_settings_that_matter_change_the_hash_and_labels_do_not(tmp_path):
    row, budget = row_of("mmi-unet-table1", "mmi_unet"), TABLES["mmi-unet-table1"].budget("small")
    job = plan_job(row, QATA, 0, budget)
    assert plan_job(replace(row, name="x", label="x"), replace(QATA, root=tmp_path), 0, budget).hash == job.hash
    others = [
        plan_job(row, QATA, 1, budget),
        plan_job(replace(row, text="none"), QATA, 0, budget),
        plan_job(replace(row, fraction=0.5), QATA, 0, budget),
        plan_job(replace(row, arguments=("--model.lr=1",)), QATA, 0, budget),
        plan_job(row, replace(QATA, ids=IDS | {"val": "d"}), 0, budget),
        plan_job(row, QATA, 0, replace(budget, epochs=8)),
        plan_job(row, QATA, 0, replace(budget, recipes=("reproduce/full",))),
    ]
    assert len({job.hash, *(other.hash for other in others)}) == 8
    assert len({job.folder, *(other.folder for other in others)}) == 8


def test_another_form_is_not_trained_as_the_papers():
    row = replace(row_of("mmi-unet-table1", "mmi_unet"), form="released")
    assert row.exists
    (result,) = plan_row(row, "qata_cov19", QATA, [0], TABLES["mmi-unet-table1"].budget("small"))
    assert (result.state, result.seed) == (State.NOT_AVAILABLE, None)
    assert result.reason == "no recipe for budget small in form released"


def test_a_text_encoder_folder_is_that_of_the_network_that_learns(tmp_path):
    order = Order(name="x", out=tmp_path, text_encoder=tmp_path / "bert")
    for table, name, part in (
        ("grounding-qata", "sentence", "network.init_args.config.text.weights"),
        ("mmi-unet-table1", "mmi_unet", "text_encoder_folder"),
    ):
        assert f"--model.{part}={tmp_path / 'bert'}" in runner._folders(job_of(table, name, budget="full"), order)
    assert not any("bert" in word for word in runner._folders(job_of("mmi-unet-table1", "unet"), order))

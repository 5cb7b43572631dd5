"""Tables 1, 2 and 3 of the MMI-UNet paper (Bui, Le, Choo, MICCAI 2024), and the budgets they are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from textray.errors import UsageError, unknown_name
from textray.io.write import atomic_write
from textray.reproduce import page, workers
from textray.reproduce.catalogue import Order
from textray.reproduce.fit import Options
from textray.reproduce.lock import locked
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.printed import MMI_UNET_TABLE_1, MMI_UNET_TABLE_2, MMI_UNET_TABLE_3
from textray.reproduce.runner import Entry, State, run_table

SOME_FAILED = 3
_NETWORKS = ("mmi_unet", "mmi_unet_gd", "guide_decoder", "unet")

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="full",
            words="the paper's configuration: ConvNeXt-T, CXR-BERT, 224 px, AdamW from 3e-4 to 1e-6 along a cosine, "
            "batches of 32, random zoom, at most 100 epochs whatever the share of the data, ended by 20 epochs without "
            "a better loss on the inner part, a network that reads a text but is trained without by 20 without a "
            "better Dice there.",
            recipes=("reproduce/full",),
            networks={name: f"model/{name}" for name in _NETWORKS},
            epochs=100,
        ),
        Budget(
            name="small",
            words="not the paper's configuration: EfficientNet-Lite0 from ImageNet (U-Net and LViT: a quarter of "
            "their width, from random weights), MiniLM, narrow decoders, in MMI-UNet's encoder no dropout and two "
            "options that go past the paper (`skip: sum`, `positions: sine`), 96 px, 7 epochs of the whole data in "
            "batches of 32, the learning rate up to 1e-3 in a tenth of the steps and down along a cosine. A share of "
            "the data is seen so often that the steps stay the same, at most four times as often.",
            recipes=("reproduce/small",),
            networks={name: f"reproduce/small_{name}" for name in (*_NETWORKS, "lvit")},
            epochs=7,
            warmup=0.1,
            most_repeats=4.0,
        ),
    )
}

_MODELS = {  # label in Table 1 → registry name
    "UNet": "unet", "UNet++": "unet_plus_plus", "AttUNet": "att_unet", "nnUNet": "nnunet", "TransUNet": "transunet",
    "UCTransNet": "uctransnet", "Swin-UNet": "swin_unet", "CLIP": "clip", "GLoRIA": "gloria", "ConVIRT": "convirt",
    "TGANet": "tganet", "ViLT": "vilt", "LAVT": "lavt", "LViT": "lvit", "GuideDecoder": "guide_decoder",
    "MMI-UNet": "mmi_unet",
}  # fmt: skip

TABLES = {
    table.name: table
    for table in (
        Table(
            name="mmi-unet-table1",
            title="MMI-UNet, Table 1: compared methods",
            rows=tuple(Row(name=model, label=label, model=model, printed=label) for label, model in _MODELS.items()),
            printed=MMI_UNET_TABLE_1,
            comparisons=(
                Comparison(question="Is MMI-UNet better than UNet?", first="unet", second="mmi_unet"),
                Comparison(question="Is MMI-UNet better than GuideDecoder?", first="guide_decoder", second="mmi_unet"),
            ),
        ),
        Table(
            name="mmi-unet-table2",
            title="MMI-UNet, Table 2: decoders",
            rows=(
                Row(name="mmi_unet_gd", label="MMI-UNet w/ GD", model="mmi_unet_gd", printed="MMI-UNet w/ GD"),
                Row(name="mmi_unet", label="MMI-UNet", model="mmi_unet", printed="MMI-UNet"),
            ),
            printed=MMI_UNET_TABLE_2,
            comparisons=(
                Comparison(question="Is MMI-UNet better than MMI-UNet w/ GD?", first="mmi_unet_gd", second="mmi_unet"),
            ),
        ),
        Table(
            name="mmi-unet-table3",
            title="MMI-UNet, Table 3: share of the training data",
            rows=(
                Row(name="nnunet", label="nnUNet (100%)", model="nnunet", printed="nnUNet (100% training data)"),
                *(
                    Row(
                        name=f"mmi_unet-{percent}",
                        label=f"MMI-UNet ({percent}%)",
                        model="mmi_unet",
                        fraction=percent / 100,
                        printed=f"MMI-UNet ({percent}% training data)",
                    )
                    for percent in (15, 25, 50, 100)
                ),
                Row(name="mmi_unet-without-text", label="MMI-UNet (100%), no text", model="mmi_unet", text="none"),
                Row(name="unet", label="UNet (100%)", model="unet"),
            ),
            printed=MMI_UNET_TABLE_3,
            comparisons=(
                Comparison(
                    question="All data: is MMI-UNet with text better than without?",
                    first="mmi_unet-without-text",
                    second="mmi_unet-100",
                ),
                Comparison(
                    question="Is MMI-UNet with text on 15% better than without text on 100%?",
                    first="mmi_unet-without-text",
                    second="mmi_unet-15",
                ),
                Comparison(
                    question="Is MMI-UNet with text on 25% better than without text on 100%?",
                    first="mmi_unet-without-text",
                    second="mmi_unet-25",
                ),
                Comparison(
                    question="Is MMI-UNet with text on 15% better than UNet on 100%?",
                    first="unet",
                    second="mmi_unet-15",
                ),
            ),
        ),
    )
}


def run(order: Order) -> int:
    """Make a table: run what is not done yet, then write ``table.md`` and ``table.csv``.

    Returns:
        Exit code: 0, or 3 where a row failed.

    Raises:
        UsageError: If a name is wrong, a data set cannot be read, or another run is at work in the same folder.
    """
    return run_of(TABLES, BUDGETS, order)


def run_of(tables: Mapping[str, Table], budgets: Mapping[str, Budget], order: Order) -> int:
    """Make one of a paper's tables with one of its budgets; see `run`."""
    return make(tables[order.name], budget_of(budgets, order.budget), order)


def budget_of(budgets: Mapping[str, Budget], name: str) -> Budget:
    """The budget of that name.

    Raises:
        UsageError: If there is none.
    """
    if name not in budgets:
        raise unknown_name("budget", name, budgets)
    return budgets[name]


class Pages(Protocol):
    """A module that writes a table down; `textray.reproduce.page` is the one of segmentation."""

    def markdown(self, table: Table, budget: Budget, entries: Sequence[Entry], *, seeds: int, command: str) -> str:
        """The whole ``table.md``."""

    def csv_table(self, table: Table, entries: Sequence[Entry]) -> str:
        """The whole ``table.csv``."""


def make(
    table: Table, budget: Budget, order: Order, *, attempt: workers.Attempt | None = None, pages: Pages = page
) -> int:
    """Make any table with any budget; see `run`.

    Args:
        table: The table.
        budget: Its budget.
        order: What was asked for.
        attempt: What makes a row; ``None`` trains and scores a segmenter.
        pages: What writes the table down.
    """
    if order.seeds < 1:
        raise UsageError("a table needs seeds", came=order.seeds, expected="1 or more")
    with locked(order.out):
        entries = run_table(
            table,
            budget,
            roots=order.roots,
            seeds=range(order.seeds),
            rows=order.rows,
            options=Options(
                out=order.out,
                threads=order.threads,
                jobs=order.jobs,
                keep_checkpoints=order.keep_checkpoints,
                text_encoder=order.text_encoder,
                tell=order.tell,
            ),
            attempt=attempt,
        )
        command = page.command_line(table.name, list(order.roots), budget.name, order.seeds, order.rows)
        folder = order.out / f"{table.name}-{budget.name}"
        folder.mkdir(exist_ok=True)
        atomic_write(folder / "table.csv", pages.csv_table(table, entries).encode())
        words = pages.markdown(table, budget, entries, seeds=order.seeds, command=command)
        atomic_write(folder / "table.md", words.encode())
    failed = [entry for entry in entries if entry.state is State.FAILED]
    order.tell(f"Table: {folder / 'table.md'}" + (f"; {len(failed)} trainings failed" if failed else ""))
    return SOME_FAILED if failed else 0

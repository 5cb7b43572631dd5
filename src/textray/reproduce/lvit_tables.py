"""Tables of LViT (Li et al., IEEE TMI 2023): against U-Net on two data sets, and its ablation."""

from __future__ import annotations

from textray.reproduce.catalogue import Order
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.printed import LVIT_QATA
from textray.reproduce.tables import run_of

_PROTOCOL = (
    "warm restarts left out and at most {epochs} epochs, ended by {patience} without a better loss on the inner part, "
    "a network that reads a text but is trained without by as many without a better Dice there."
)
_SIZES = (
    "Sizes tiny, small and base have channels as 1 to 2 to 4, and are TextRay's: the article does not tell its own."
)

QATA_BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="full",
            words="the paper's configuration as far as it is known: 64 channels, uncased BERT, 224 px, images in "
            "[0, 1], batches of 24, Adam from 3e-4 to 1e-4 along a cosine, "
            + _PROTOCOL.format(epochs=100, patience=20)
            + " Light turns, zooms and shifts without flips; Dice and cross-entropy in equal parts. A quarter of the "
            "masks is seen at most four times as often; early stopping counts epochs, four times shorter ones then. "
            "Images without masks: of a teacher's label 0.95 stays in each epoch; their weight grows over 6 epochs; "
            "the LV loss compares with ellipses drawn from zones. " + _SIZES,
            recipes=("reproduce/full", "reproduce/full_lvit"),
            networks={
                "unet": "model/unet",
                "lvit": "model/lvit",
                "lvit_tiny": "reproduce/full_lvit_tiny",
                "lvit_small": "reproduce/full_lvit_small",
                "lvit_base": "model/lvit",
            },
            epochs=100,
            most_repeats=4.0,
            semi=("reproduce/full_semi",),
        ),
        Budget(
            name="small",
            words="not the paper's configuration: a quarter of the channels of LViT and U-Net, from random weights, "
            "MiniLM, 96 px, 7 epochs of the whole data in batches of 32, the learning rate up to 1e-3 in a tenth of "
            "the steps and down along a cosine. A quarter of the masks is seen four times as often, so that the steps "
            "stay the same; a teacher has three sevenths of them and what starts from it the other four, with a rise "
            "and fall of the learning rate of its own. Images without masks: of a teacher's label 0.6 stays in each "
            "of 4 epochs; their weight is 0.5 in the first and 1 in the others; the LV loss compares with ellipses "
            "drawn from zones. " + _SIZES + " The one that other rows have is small.",
            recipes=("reproduce/small",),
            networks={
                "unet": "reproduce/small_unet",
                "lvit": "reproduce/small_lvit",
                "lvit_tiny": "reproduce/small_lvit_tiny",
                "lvit_small": "reproduce/small_lvit",
                "lvit_base": "reproduce/small_lvit_base",
            },
            epochs=7,
            warmup=0.1,
            most_repeats=4.0,
            semi=("reproduce/small_semi",),
        ),
    )
}

MONUSEG_BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="full",
            words="the paper's configuration as far as it is known: 64 channels, uncased BERT, 224 px, colour in "
            "[0, 1], batches of 4, Adam from 1e-3 to 1e-4 along a cosine, "
            + _PROTOCOL.format(epochs=400, patience=50)
            + " Light turns, zooms and shifts without flips; Dice and cross-entropy in equal parts.",
            recipes=("reproduce/full", "reproduce/full_lvit", "reproduce/full_monuseg"),
            networks={"unet": "model/unet", "lvit": "model/lvit"},
            epochs=400,
        ),
        Budget(
            name="small",
            words="not the paper's configuration: a quarter of the channels of LViT and U-Net, from random weights, "
            "MiniLM, 224 px, 160 epochs of the twenty pictures in batches of 4, the learning rate up to 1e-3 in a "
            "tenth of the steps and down along a cosine.",
            recipes=("reproduce/small_monuseg",),
            networks={"unet": "reproduce/small_unet", "lvit": "reproduce/small_lvit_monuseg"},
            epochs=160,
            warmup=0.1,
        ),
    )
}

_CONFIG = "--model.network.init_args.config"
_QUARTER, _TAUGHT = 3, 4  # sevenths of the steps of a row that a teacher has, and what starts from it
_UNET = Row(name="unet", label="UNet", model="unet", printed="UNet")
_LVIT = Row(name="lvit", label="LViT", model="lvit", printed="LViT")
_SILENT = Row(name="without_text", label="LViT, no text", model="lvit", text="none")
_TEACHER = Row(
    name="teacher_25",
    label="25 % of the masks: teacher alone",
    model="lvit",
    fraction=0.25,
    length=_QUARTER / 7,
    teaches=True,
    more_seeds=1,
)


def _semi(name: str, label: str, *arguments: str) -> Row:
    """A row that starts from the teacher and learns from all images and a quarter of the masks."""
    return Row(
        name=name,
        label=f"25 % of the masks: {label}",
        model="lvit",
        labelled=0.25,
        length=_TAUGHT / 7,
        teacher=_TEACHER,
        arguments=arguments,
        more_seeds=1,
    )


_AGAINST = (
    Comparison(question="Is LViT better than UNet?", first="unet", second="lvit"),
    Comparison(question="Is LViT with text better than without?", first="without_text", second="lvit"),
    Comparison(question="Is LViT without text better than UNet?", first="unet", second="without_text"),
)

TABLES = {
    table.name: table
    for table in (
        Table(
            name="lvit-qata",
            title="LViT against UNet on QaTa-COV19",
            rows=(_UNET, _LVIT, _SILENT),
            printed=LVIT_QATA,
            data=("qata_cov19",),
            comparisons=_AGAINST,
            notes=(
                "The printed rows are those of MMI-UNet's Table 1, which equal to the last digit those that LViT's "
                "authors print beside their code. Their network is told the first ten words of a caption, which "
                "leaves most captions without the right lung; here it is told all of them.",
            ),
        ),
        Table(
            name="lvit-monuseg",
            title="LViT against UNet on MoNuSeg",
            rows=(_UNET, _LVIT, _SILENT),
            data=("monuseg",),
            comparisons=_AGAINST,
            notes=(
                "LViT's authors print beside their code a Dice of 79.98 without and of 80.36 with a pretrained U-Net, "
                "on 14 test pictures. No IoU is known to go with them here, so nothing tells how they were averaged, "
                "and the table has no printed rows.",
                "Captions tell how dense nuclei are in parts of the picture, in eleven sentences for all pictures. "
                "Where the test pictures are not at hand, six are scored: heed the intervals.",
            ),
        ),
        Table(
            name="lvit-ablation",
            title="LViT: ablation, sizes, and a quarter of the masks",
            rows=(
                _LVIT,
                _SILENT,
                Row(
                    name="without_plam",
                    label="LViT, plain skips in PLAM's place",
                    model="lvit",
                    arguments=(f"{_CONFIG}.plam=false",),
                ),
                Row(
                    name="sigmoid_gate",
                    label="LViT, PLAM's weight through a sigmoid",
                    model="lvit",
                    arguments=(f"{_CONFIG}.gate=sigmoid",),
                ),
                Row(
                    name="supervised_25",
                    label="25 % of the masks: these alone",
                    model="lvit",
                    fraction=0.25,
                    more_seeds=1,
                ),
                _TEACHER,
                _semi("fixed_25", "teacher's labels as they are", "--model.epi=false", "--model.lv_weight=0"),
                _semi("epi_25", "EPI", "--model.lv_weight=0"),
                _semi("epi_lv_25", "EPI + LV"),
                Row(name="tiny", label="LViT, tiny", model="lvit", recipe="lvit_tiny"),
                Row(name="small", label="LViT, small", model="lvit", recipe="lvit_small"),
                Row(name="base", label="LViT, base", model="lvit", recipe="lvit_base", more_seeds=-1),
            ),
            printed=LVIT_QATA,
            data=("qata_cov19",),
            comparisons=(
                Comparison(question="Is LViT with text better than without?", first="without_text", second="lvit"),
                Comparison(question="Is PLAM better than plain skips?", first="without_plam", second="lvit"),
                Comparison(
                    question="Is a sigmoid on PLAM's weight better than none?", first="lvit", second="sigmoid_gate"
                ),
                Comparison(question="Is small better than tiny?", first="tiny", second="small"),
                Comparison(question="Is base better than small?", first="small", second="base"),
                Comparison(
                    question="25 %: is EPI better than the masks alone?", first="supervised_25", second="epi_25"
                ),
                Comparison(
                    question="25 %: is EPI + LV better than the masks alone?", first="supervised_25", second="epi_lv_25"
                ),
                Comparison(question="25 %: is EPI better than its teacher?", first="teacher_25", second="epi_25"),
                Comparison(
                    question="25 %: is EPI better than the teacher's labels as they are?",
                    first="fixed_25",
                    second="epi_25",
                ),
                Comparison(question="25 %: is EPI + LV better than EPI?", first="epi_25", second="epi_lv_25"),
                Comparison(question="Are all masks better than 25 %?", first="supervised_25", second="lvit"),
                Comparison(question="Are all masks better than 25 % with EPI + LV?", first="epi_lv_25", second="lvit"),
            ),
            notes=(
                "25 % of the masks: those of a quarter of the training images, whole patients, which the seed "
                "chooses. These alone: the others are not used, in as many steps as the teacher and what starts from "
                "it have together, where nothing stops early. Teacher alone: the weights that the rows below start "
                "from, so it had fewer steps than they; the masks alone are the fair rival. Teacher's labels as they "
                "are: its masks stand in for those that are not seen. EPI: they move each epoch towards what the "
                "network finds. LV: what is found is also compared with a schematic mask of the most similar caption, "
                "as LViT's authors do.",
                "The captions of the other three quarters were written from the masks that are not seen, and all rows "
                "that start from the teacher are told them, as in the paper. All rows select their checkpoint on the "
                "masks of `inner`, which are not counted among the quarter.",
                "Rows that start from the teacher have one teacher for each seed, whose steps stand in the column "
                "`steps_before` of `table.csv`; their seconds are without the teacher's, which stand in its own row.",
                "These rows have a seed more than the others, and the size base one less; a question is answered from "
                "the seeds that both of its rows have. Small and base are LViT's own row where they are of its size.",
            ),
        ),
    )
}


def run(order: Order) -> int:
    """Make a table of LViT; see `textray.reproduce.tables.run`."""
    return run_of(TABLES, MONUSEG_BUDGETS if order.name == "lvit-monuseg" else QATA_BUDGETS, order)

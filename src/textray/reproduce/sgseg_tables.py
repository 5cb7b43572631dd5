"""Tables 1 and 2 of SGSeg (Ye, Meng, Li, Feng, Kim, MICCAI 2024), and the budgets they are made with."""

from __future__ import annotations

from textray.reproduce.catalogue import Order
from textray.reproduce.plan import Budget, Comparison, Row, Table
from textray.reproduce.printed import SGSEG_TABLE_1, SGSEG_TABLE_2
from textray.reproduce.tables import run_of

BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="full",
            words="the paper's configuration as far as it is known: ConvNeXt-T, LERG on ResNet-50 (both from ImageNet; "
            "the paper's published RT-DETR is not read, so the rest of the detector starts at random), CXR-BERT, 224 "
            "px, AdamW from 3e-4 to 1e-6 along a cosine, batches of 32, random crops, masks and rotations, at most 100"
            " epochs, ended by 20 epochs without a better loss on the inner part, a network that reads a text but is "
            "trained without by 20 without a better Dice there. Pre-training: 20 epochs more.",
            recipes=("reproduce/full", "reproduce/sgseg"),
            networks={
                "sgseg": "reproduce/full_sgseg",
                "sgseg_simple": "reproduce/full_sgseg_simple",
                "sgseg_mmi": "reproduce/full_sgseg_mmi",
                "guide_decoder": "reproduce/full_sgseg_decoder",
                "unet": "model/unet",
            },
            epochs=100,
            epochs_before=20,
        ),
        Budget(
            name="small",
            words="not the paper's configuration: EfficientNet-Lite0 from ImageNet in both halves (U-Net and LViT: a "
            "quarter of their width, from random weights), a light LERG that starts at random behind its trunk, "
            "MiniLM, narrow decoders, in MMI-UNet's encoder no dropout and two options that go past the paper (`skip: "
            "sum`, `positions: sine`), 96 px, random crops, masks and rotations, 4 epochs of the whole data in "
            "batches of 32, the learning rate up to 1e-3 in a tenth of the steps and down along a cosine. "
            "Pre-training: 2 epochs more.",
            recipes=("reproduce/small", "reproduce/sgseg"),
            networks={
                "sgseg": "reproduce/small_sgseg",
                "sgseg_simple": "reproduce/small_sgseg_simple",
                "sgseg_mmi": "reproduce/small_sgseg_mmi",
                "guide_decoder": "reproduce/small_sgseg_decoder",
                "unet": "reproduce/small_unet",
                "lvit": "reproduce/small_lvit",
            },
            epochs=4,
            epochs_before=2,
            warmup=0.1,
        ),
    )
}

_CONFIG = "--model.network.init_args.config"
_SOFT = (
    # Six tokens of the zones need room beside the longest sentence, and a segmenter that has seen them in training: on
    # 40 % of the films with the network's own report, on 20 % nothing, on 40 % the caption.
    f"{_CONFIG}.zone_tokens=true",
    f"{_CONFIG}.guide_decoder.tokens=30",
    "--data.report_dropout=0.6",
    "--model.self_guided=0.6667",
)
_SGSEG = Row(
    name="sgseg",
    label="SGSeg",
    model="sgseg",
    text="generated",
    printed="SGSeg (ours)",
)

TABLES = {
    table.name: table
    for table in (
        Table(
            name="sgseg-table1",
            title="SGSeg, Table 1: compared methods",
            rows=(
                Row(name="unet", label="U-Net", model="unet", printed="U-Net"),
                Row(name="unet_plus_plus", label="U-Net++", model="unet_plus_plus", printed="U-Net++"),
                Row(name="att_unet", label="Attention U-Net", model="att_unet", printed="Attention U-Net"),
                Row(name="transunet", label="Trans U-Net", model="transunet", printed="Trans U-Net"),
                Row(name="swin_unet", label="Swin U-Net", model="swin_unet", printed="Swin U-Net"),
                _SGSEG,
                Row(name="lvit", label="LViT", model="lvit", printed="LViT"),
                Row(name="guide_decoder", label="LanGuideSeg", model="guide_decoder", printed="LanGuideSeg"),
            ),
            printed=SGSEG_TABLE_1,
            data=("qata_cov19",),
            comparisons=(
                Comparison(question="Without a report: is SGSeg better than U-Net?", first="unet", second="sgseg"),
                Comparison(
                    question="Is SGSeg without a report better than LanGuideSeg with the caption?",
                    first="guide_decoder",
                    second="sgseg",
                ),
            ),
            notes=(
                "LanGuideSeg is the GuideDecoder that SGSeg has for a segmenter, alone, on the same trunk. U-Net has no"
                " pretrained trunk, so its row differs by more than its want of text.",
            ),
        ),
        Table(
            name="sgseg-table2",
            title="SGSeg, Table 2: ablation",
            rows=(
                Row(
                    name="without_text",
                    label="Without text",
                    model="guide_decoder",
                    text="none",
                    printed="Without Text",
                ),
                Row(
                    name="clip",
                    label="Vision-language pre-training (CLIP)",
                    model="guide_decoder",
                    text="none",
                    before="contrastive",
                    printed="Vision-language pre-training (CLIP)",
                ),
                Row(
                    name="simple",
                    label="Self-guidance (simple)",
                    model="sgseg_simple",
                    text="generated",
                    printed="Self-Guidance (simple report generation)",
                ),
                Row(
                    name="lerg",
                    label="Self-guidance (LERG)",
                    model="sgseg",
                    text="generated",
                    printed="Self-Guidance (weakly-supervised LERG)",
                ),
                Row(
                    name="full_text",
                    label="Full text",
                    model="sgseg",
                    text="generated",
                    scored="oracle",
                    printed="Full Text",
                ),
                Row(name="silent", label="LERG, no report written", model="sgseg", text="generated", scored="none"),
                Row(
                    name="six_queries",
                    label="LERG, six queries",
                    model="sgseg",
                    text="generated",
                    arguments=(f"{_CONFIG}.locator.aggregate=six",),
                ),
                Row(
                    name="mean_pooling",
                    label="LERG, mean pooling",
                    model="sgseg",
                    text="generated",
                    arguments=(f"{_CONFIG}.locator.aggregate=mean",),
                ),
                Row(
                    name="clusters",
                    label="LERG, labels by clusters",
                    model="sgseg",
                    text="generated",
                    arguments=("--data.labels=clusters",),
                ),
                Row(name="soft_zones", label="LERG, soft zones", model="sgseg", text="generated", arguments=_SOFT),
                Row(
                    name="mmi_unet",
                    label="LERG before MMI-UNet",
                    model="sgseg",
                    text="generated",
                    recipe="sgseg_mmi",
                ),
            ),
            printed=SGSEG_TABLE_2,
            data=("qata_cov19",),
            comparisons=(
                Comparison(
                    question="Is self-guidance (LERG) better than the image alone?", first="without_text", second="lerg"
                ),
                Comparison(
                    question="Is self-guidance (simple) better than the image alone?",
                    first="without_text",
                    second="simple",
                ),
                Comparison(
                    question="Is CLIP's pre-training better than none, on the image alone?",
                    first="without_text",
                    second="clip",
                ),
                Comparison(question="Is LERG better than simple generation?", first="simple", second="lerg"),
                Comparison(question="Is the caption better than LERG's report?", first="lerg", second="full_text"),
                Comparison(question="Is LERG's report better than none written?", first="silent", second="lerg"),
                Comparison(question="Are six queries better than one?", first="lerg", second="six_queries"),
                Comparison(question="Is mean pooling better than one query?", first="lerg", second="mean_pooling"),
                Comparison(question="Are labels by clusters better than by rules?", first="lerg", second="clusters"),
                Comparison(
                    question="Are soft zones better than the sentence alone?", first="lerg", second="soft_zones"
                ),
                Comparison(
                    question="Is LERG before MMI-UNet better than before GuideDecoder?", first="lerg", second="mmi_unet"
                ),
                Comparison(
                    question="Are soft zones better than the image alone?", first="without_text", second="soft_zones"
                ),
            ),
            notes=(
                "Without text: SGSeg's segmenter alone, guide layers off, trained, selected and scored without a word. "
                "CLIP: the same, its trunk pre-trained on the films and captions of the training part by contrast, in "
                "steps beside those of the row; the seconds of its training include them. Simple: a pooled classifier "
                "in LERG's place. Full text and no report written: the weights of the LERG row, scored otherwise. Its "
                "segmenter had a caption with every film in training and has never learnt to go without one: what its "
                "reports are worth is told by the row without text.",
                "Rows without a printed one go past the paper, each by one change to the LERG row: six queries in place"
                " of one; the mean of the objects in place of a query; zones to learn from by clusters of the "
                "captions' phrases in place of rules; the zones' probabilities as six tokens beside the sentence, in "
                "training on 40 % of the films with the network's own report, 20 % with none and 40 % with the "
                "caption; MMI-UNet in GuideDecoder's place.",
            ),
        ),
    )
}


def run(order: Order) -> int:
    """Make a table of SGSeg; see `textray.reproduce.tables.run`."""
    return run_of(TABLES, BUDGETS, order)

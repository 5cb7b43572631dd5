"""The data sets that can be read by name; `textray.registry` gives them out."""

from __future__ import annotations

from textray.rows import DatasetRow

DATASETS = {
    row.name: row
    for row in (
        DatasetRow(
            name="qata_cov19",
            path="textray.data.qata_cov19:QaTaCOV19",
            title="QaTa-COV19 v2",
            laterality="viewer",
            masks=True,
            card="docs/datasets/qata_cov19.md",
            terms="Research use only. The weights were learnt from QaTa-COV19 (Qatar and Tampere Universities), whose "
            "images come from BIMCV-COVID19+ and other public sets with terms of their own; the data set's licence was "
            "not verified. No image or caption of it is contained in this folder.",
            limits=(
                "Trained on films of patients with COVID-19 pneumonia only, every one of them with lesions: the "
                "network has never seen a healthy film, so a mask on a healthy film is likely.",
                "Frontal films of adults only. Lateral films, CT slices, photos of films and children's films are "
                "outside of what it has learnt; nothing stops it from drawing a mask on them.",
                "The reports of the training set are captions that were written from the lesion masks: they say where "
                "the lesions are, in image sides. A caption therefore holds part of the answer, and scores with it "
                "(`oracle`) are not scores of a reader who writes a report without seeing the mask.",
            ),
            tasks=("segmentation", "grounding"),
            phrase_kinds=("caption", "clause"),
        ),
        DatasetRow(
            name="mosmed_plus",
            path="textray.data.mosmed_plus:MosMedPlus",
            title="MosMedData+",
            laterality="unknown",
            masks=True,
            card="docs/datasets/mosmed_plus.md",
            protocols=("slice", "volume"),
            terms="Research use only. The weights were learnt from MosMedData+, CT slices of several public sets with "
            "terms of their own; the collection's licence was not verified. No slice or caption of it is in here.",
            limits=(
                "Trained on single CT slices of patients with COVID-19 pneumonia: useless on films.",
                "Nobody has said whose left and right the captions mean; words about one side must not be relied on.",
                "The published cut has slices of one volume in train and test: judge by the cut by volume.",
            ),
        ),
        DatasetRow(
            name="monuseg",
            path="textray.data.monuseg:MoNuSeg",
            title="MoNuSeg",
            laterality="viewer",
            masks=True,
            card="docs/datasets/monuseg.md",
            terms="CC BY-NC-SA 4.0, the terms of MoNuSeg, from whose images the weights were learnt: not for "
            "commercial use, to be passed on under the same terms and with the names of its authors. No image of it is "
            "in here; the captions that the weights know are.",
            limits=(
                "Trained on a few dozen pictures of stained tissue (H&E, 40x) in colour: useless on films, and unknown "
                "on other stains, scanners and magnifications.",
                "The captions were written with the nuclei in view; a network knows those captions only.",
            ),
            colour=True,
            captions="free",
        ),
        DatasetRow(
            name="ms_cxr",
            path="textray.data.ms_cxr:MSCXR",
            title="MS-CXR",
            laterality="patient",
            masks=False,
            card="docs/datasets/ms_cxr.md",
            splits=("train", "val", "test"),
            protocols=("all", "published"),
            terms="PhysioNet Credentialed Health Data License: nothing of it may be passed on. Not for training.",
            limits=("Boxes of eight findings on films of one hospital; made to score, not to learn from.",),
            captions="free",
            tasks=("grounding",),
            phrase_kinds=("phrase", "class"),
        ),
        DatasetRow(
            name="rsna",
            path="textray.data.rsna:RSNA",
            title="RSNA Pneumonia Detection Challenge 2018",
            laterality="patient",
            masks=False,
            card="docs/datasets/rsna.md",
            splits=("train", "test"),
            terms="The competition's terms: not for commercial use. Films: NIH ChestX-ray14. Not for training.",
            limits=("Boxes mark opacities that may be pneumonia; every film is asked the same phrase.",),
            captions="free",
            tasks=("grounding",),
            phrase_kinds=("class",),
        ),
        DatasetRow(
            name="open_i",
            path="textray.data.open_i:OpenI",
            title="Open-i, chest X-rays of Indiana University",
            laterality="patient",
            masks=False,
            card="docs/datasets/open_i.md",
            terms="CC BY-NC-ND 4.0, the terms of its reports: not for commercial use, and not to be passed on changed. "
            "No image or report of it is in here.",
            limits=(
                "Reports of one state's hospitals, a third of them of normal films; words that could "
                "name a person were taken out, some findings with them.",
                "Lateral films are among the images, and nothing says which they are.",
            ),
            captions="free",
            tasks=("grounding",),
        ),
        DatasetRow(
            name="phantom",
            path="textray.data.phantom:Phantom",
            title="Synthetic chest film",
            laterality="viewer",
            masks=True,
            card="docs/datasets/phantom.md",
            terms="Apache-2.0. Learnt from synthetic pictures only: for tests, useless on real films.",
            limits=("Trained on synthetic pictures: useless on real films.",),
            checkable=False,
            on_disk=False,
        ),
    )
}

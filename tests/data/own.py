"""Small folders of one's own: films, masks in every form, reports; made without code of the reader."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 20)
LESION = (slice(3, 9), slice(2, 7))


def film(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def mask(place=LESION, size=SIZE):
    drawn = np.zeros(size, bool)
    drawn[place] = True
    return drawn


def save(path, levels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = levels if isinstance(levels, Image.Image) else Image.fromarray(levels)
    picture.save(path, **options)
    return path


def folder(root, count=10, *, masks=True, reports=True):
    """Films ``f0`` to ``f9`` of five patients, each with a lesion at another place, and a table of reports."""
    lines = ["image,text,patient"]
    for i in range(count):
        save(root / "images" / f"f{i}.png", film(i))
        if masks:
            save(root / "masks" / f"f{i}.png", np.uint8(255) * mask((slice(3, 9), slice(1 + i % 9, 7 + i % 9))))
        side = ("right", "left")[i % 2]
        lines.append(f'f{i}.png,"Opacity in the {side} lower zone, new.",P{i // 2}')
    if reports:
        (root / "reports.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


# One mask in a form: each takes a path without suffix and a mask, and returns the file.


def grey(levels):
    return lambda path, drawn: save(path.with_suffix(".png"), np.uint8(levels) * drawn)


def colour(path, drawn):
    return save(path.with_suffix(".png"), np.uint8([255, 0, 0]) * drawn[..., None])


def palette(path, drawn):
    picture = Image.fromarray(drawn.astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return save(path.with_suffix(".png"), picture)


def bits(path, drawn):
    return save(path.with_suffix(".png"), Image.fromarray(drawn))


def tiff(path, drawn):
    return save(path.with_suffix(".tif"), np.uint8(255) * drawn)


def jpeg(path, drawn):
    return save(path.with_suffix(".jpg"), np.uint8(255) * drawn, quality=95)


def nifti(path, drawn, affine=(-1, -1, 1, 1), suffix=".nii.gz"):
    """As ITK writes a picture: columns first, to the left and to the back."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    volume = nibabel.Nifti1Image(drawn.T.astype(np.uint8)[..., None], np.diag(affine).astype(float))
    nibabel.save(volume, path.with_name(path.name + suffix))
    return path.with_name(path.name + suffix)


def ring(place=LESION):
    """Corners of a rectangle of pixels, columns and rows."""
    rows, columns = place
    right, bottom = columns.stop, rows.stop
    return [(columns.start, rows.start), (right, rows.start), (right, bottom), (columns.start, bottom)]


def place_of(drawn):
    rows, columns = np.nonzero(drawn)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def labelme(path, drawn):
    shapes = [
        {"label": "opacity", "shape_type": "polygon", "points": [list(map(int, p)) for p in ring(place_of(drawn))]}
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"shapes": shapes, "imagePath": f"{path.name}.png", "imageHeight": len(drawn), "imageWidth": len(drawn[0])}
    path.with_suffix(".json").write_text(json.dumps(values))
    return path.with_suffix(".json")


def packed(drawn):
    """COCO's text of runs down the columns, written from its description."""
    flat = drawn.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    counts = [0, *counts] if flat[0] else counts
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            code = value & 31
            value >>= 5
            more = value != -1 if code & 16 else value != 0
            text += chr((code | 32 if more else code) + 48)
    return text, counts


def coco(path, masks, way="polygon"):
    """One file of all films; ``masks`` by file name."""
    images, annotations = [], []
    for number, (name, drawn) in enumerate(masks.items(), 1):
        height, width = drawn.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        if not drawn.any():
            continue
        text, counts = packed(drawn)
        shape = {
            "polygon": [[float(v) for point in ring(place_of(drawn)) for v in point]],
            "text": {"size": [height, width], "counts": text},
            "runs": {"size": [height, width], "counts": counts},
        }[way]
        annotations.append({"id": number, "image_id": number, "category_id": 7, "segmentation": shape})
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "opacity"}]}
    path.write_text(json.dumps(values))
    return path


def cvat(path, masks, way="polygon"):
    films = []
    for number, (name, drawn) in enumerate(masks.items()):
        rows, columns = place_of(drawn)
        part = drawn[rows, columns].ravel().astype(int)
        runs = [0, len(part)] if part.all() else None
        shape = {
            "polygon": '<polygon label="opacity" points="{}"/>'.format(
                ";".join(f"{x}.00,{y}.00" for x, y in ring((rows, columns)))
            ),
            "box": f'<box label="opacity" xtl="{columns.start}" ytl="{rows.start}" xbr="{columns.stop}" '
            f'ybr="{rows.stop}"/>',
            "mask": f'<mask label="opacity" rle="{", ".join(map(str, runs))}" left="{columns.start}" '
            f'top="{rows.start}" width="{columns.stop - columns.start}" height="{rows.stop - rows.start}"/>',
        }[way]
        height, width = drawn.shape
        films.append(f'<image id="{number}" name="{name}" width="{width}" height="{height}">{shape}</image>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{"".join(films)}</annotations>\n')
    return path


def seg(path, film_path, drawn, *, label="Lesion"):
    """A BINARY SEG of one DICOM film, written by highdicom."""
    import pydicom
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr.coding import CodedConcept

    header = pydicom.dcmread(film_path)
    code = CodedConcept("52988006", "SCT", "Lesion")
    segment = SegmentDescription(
        segment_number=1, segment_label=label, segmented_property_category=code, segmented_property_type=code,
        algorithm_type="MANUAL",
    )  # fmt: skip
    ds = Segmentation(
        source_images=[header], pixel_array=drawn, segmentation_type="BINARY", segment_descriptions=[segment],
        series_instance_uid=pydicom.uid.generate_uid(), series_number=2, sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1, manufacturer="x", manufacturer_model_name="x", software_versions="1",
        device_serial_number="1",
    )  # fmt: skip
    path = Path(path).with_suffix(".dcm")
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
    return path

"""Films whose pixels or tags would give a wrong mask: each gives the mask of its clean twin, or a warning by name."""

import io
import pickle
import threading
import warnings

import numpy as np
import pydicom
import pytest
from PIL import Image as PILImage
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

import textray
from textray.errors import InputError
from textray.inference.inputs import demo_film
from textray.io import child as processes
from textray.io import decoder
from textray.io.child import Child
from textray.io.read import from_array, read

TOP = 4095


@pytest.fixture(scope="module")
def chest():
    """The real film of pydicom-data, 12 bits, bright dense, about 490 x 460."""
    pixels = read(demo_film()).pixels[::4, ::4]
    return np.rint(pixels * TOP).astype(np.uint16)


@pytest.fixture(scope="module")
def model():
    return textray.load(threads=1)


@pytest.fixture(scope="module")
def clean(model, chest):
    return model.segment(from_array(chest << 4)).mask


def codes(image):
    return [notice.code for notice in image.notices]


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (65535, {"PixelPaddingValue": 65535}),
        (-32768, {"PixelPaddingValue": -32768, "PixelRepresentation": 1}),
        (-2000, {"PixelPaddingValue": -2100, "PixelPaddingRangeLimit": -1900, "PixelRepresentation": 1}),
        (65535, {"PixelPaddingValue": 65535, "PhotometricInterpretation": "MONOCHROME1"}),
        (65535, {}),  # without a tag
        (TOP, {"PixelPaddingValue": TOP}),  # inside the range of the film
    ],
)
def test_a31_padding_counts_in_no_range_and_is_air(chest, dicom, model, clean, value, tags):
    signed, inverted = "PixelRepresentation" in tags, "PhotometricInterpretation" in tags
    levels = (TOP - chest if inverted else chest).astype(np.int16 if signed else np.int32)
    levels[:20] = levels[-15:] = value
    levels = levels.astype(np.int16 if signed else np.uint16)
    image = read(dicom(levels, BitsStored=16, HighBit=15, **tags))
    assert dice(model.segment(image).mask, clean) > 0.97
    assert sum(image.info["left_out"].values()) == pytest.approx(35 / len(chest), abs=0.01)
    assert (image.pixels[:20] == (0 if "PixelPaddingValue" in tags else image.pixels.max())).all()


def test_a31_padding_that_leaves_no_film_is_not_believed(chest, dicom):
    levels = np.where(chest < TOP // 2, 0, chest).astype(np.uint16)
    levels[: int(0.95 * len(levels))] = 0
    image = read(dicom(levels, PixelPaddingValue=0))
    assert "left_out" not in image.info


@pytest.mark.parametrize("kind", ["dicom", "png", "array", "float"])
def test_a31_a_marker_far_above_the_film_sets_no_range(chest, dicom, raster, model, clean, kind):
    marked, side = chest.copy(), int((0.01 * chest.size) ** 0.5)
    marked[:side, :side] = 65535
    source = {
        "dicom": lambda: dicom(marked, BitsStored=16, HighBit=15),
        "png": lambda: raster(marked),
        "array": lambda: marked,
        "float": lambda: marked / np.float64(65535),
    }[kind]()
    prediction = model.segment(source)
    assert dice(prediction.mask, clean) > 0.97
    assert prediction.record["input"]["reader"]["left_out"]["far_values"] == pytest.approx(0.01, abs=0.001)


def edge(film, level, shape=(60, 120)):
    """A marker whose edges have every level between the film's and its own."""
    marked, ramp = film.astype(np.float64), np.ones(shape)
    ramp[:, :20] = np.random.default_rng(0).random((shape[0], 20))
    marked[: shape[0], : shape[1]] += ramp * (level - marked[: shape[0], : shape[1]])
    return marked.astype(film.dtype)


def two_levels(film):
    marked = film.copy()
    marked[:30, :80], marked[-30:, :80] = 20_000, 40_000
    return marked


def below(film):
    marked = film // 2 + 2000
    marked[:30, :80] = 0
    return marked


@pytest.mark.parametrize(
    ("change", "signed"),
    [
        (two_levels, False),
        (below, False),
        (lambda film: edge(film, 65535), False),
        (lambda film: np.where(np.arange(len(film))[:, None] < 20, 8000, film), False),
        (lambda film: np.where(np.arange(len(film))[:, None] < 20, -2000, film), True),
        (lambda film: np.where(np.arange(len(film))[:, None] < 20, 60_000 + film % 500, film), False),
    ],
    ids=["markers of two levels", "below the film", "smooth edges", "just above", "just below", "noise"],
)
def test_a31_masses_outside_of_the_film_set_no_range(chest, dicom, model, clean, change, signed):
    levels = change(chest.astype(np.int16 if signed else np.uint16)).astype(np.int16 if signed else np.uint16)
    image = read(dicom(levels, BitsStored=16, HighBit=15, PixelRepresentation=int(signed)))
    assert image.info["left_out"]["far_values"] > 0.01
    assert dice(model.segment(image).mask, clean) > 0.95


@pytest.mark.parametrize("levels", [2, 3, 4, 8, 30])
def test_a31_a_picture_of_few_levels_is_left_as_it_is(chest, raster, levels):
    image = read(raster((chest // (TOP // levels + 1) * (65535 // levels)).astype(np.uint16)))
    assert "left_out" not in image.info


def test_a31_levels_too_close_for_their_type_are_read(chest, raster):
    image = read(raster((30_000 + chest // 1366).astype(np.uint16)))
    assert codes(image) == ["W_LOW_CONTRAST"]


def test_a31_a_film_without_far_values_is_left_as_it_is(chest, raster):
    image = read(raster(chest))
    assert "left_out" not in image.info
    np.testing.assert_array_equal(image.pixels, chest.astype(np.float32) / np.float32(65535))


def lut(first, entries):
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, 12])
    item.add_new(0x00283006, "US", [int(entry) for entry in entries])
    return Sequence([item])


@pytest.mark.parametrize(
    "tags",
    [
        *({"WindowCenter": c, "WindowWidth": w} for c, w in ((128, 256), (40, 400), (-600, 1500), (2048, 1))),
        {"WindowCenter": 9000, "WindowWidth": 500, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 0, "WindowWidth": 1e9},  # the film is one grey
        {"VOILUTSequence": lut(0, np.arange(256) * 16)},
        {"VOILUTSequence": lut(4000, np.arange(4096))},
        {"ModalityLUTSequence": lut(0, np.arange(256) * 16)},
    ],
)  # fmt: skip
def test_a11_a_window_or_table_that_does_not_fit_is_ignored_with_a_warning(chest, dicom, model, clean, tags):
    image = read(dicom(chest, **tags))
    assert codes(image) == ["W_WINDOW"]
    assert image.info["window"]["from"] == "percentiles"
    assert dice(model.segment(image).mask, clean) > 0.99


def test_a11_a_window_that_fits_is_used(chest, dicom):
    image = read(dicom(chest, WindowCenter=2200, WindowWidth=3000))
    assert codes(image) == []
    assert image.info["window"]["from"] == "window"


@pytest.mark.parametrize("width", [1500, 4000])
def test_a11_a_window_that_hides_much_of_the_lungs_is_used_with_a_warning(chest, dicom, width):
    black = int(np.percentile(chest[100:-100, 100:-100], 22))
    image = read(dicom(chest, WindowCenter=black + width / 2, WindowWidth=width))
    assert image.info["window"]["from"] == "window"
    assert codes(image) == ["W_LOW_CONTRAST"]


def test_a11_a_modality_table_of_one_level_leaves_no_film(chest, dicom, refused):
    refused(dicom(chest, ModalityLUTSequence=lut(0, np.full(4096, 7))), "E_CONSTANT")


@pytest.mark.parametrize(
    "tags",
    [
        {"BitsStored": 10, "HighBit": 9},
        {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1},
    ],
    ids=["too few bits", "a sign that is none"],
)
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_a10_tags_that_cut_the_values_give_a_warning(chest, dicom, tags, syntax):
    ds = pydicom.dcmread(io.BytesIO(dicom(chest)))
    if syntax:
        ds.compress(syntax, generate_instance_uid=False)
    ds.update(tags)
    assert "W_BITS" in codes(read(ds))


def test_a10_a_signed_film_read_without_sign_gives_a_warning(chest, dicom):
    levels = chest.astype(np.int16) - 2048
    assert codes(read(dicom(levels, BitsStored=16, HighBit=15, PixelRepresentation=1))) == []
    assert "W_BITS" in codes(read(dicom(levels, BitsStored=16, HighBit=15, PixelRepresentation=0)))


STORED = [
    (lambda film: (film << 4).astype(np.uint16), {"HighBit": 15}),
    (lambda film: film | (np.uint16(1) << 15) * (np.indices(film.shape).sum(0) % 2).astype(np.uint16), {}),
    (lambda film: ((film.astype(np.int16) - 2048) & 0xFFF).astype(np.uint16), {"PixelRepresentation": 1}),
]


@pytest.mark.parametrize(("stored", "tags"), STORED, ids=["high bit 15", "overlay in bit 15", "signed"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a10_rules_of_bits_hold_after_every_decoder(chest, dicom, stored, tags, syntax):
    data = dicom(stored(chest), **tags)
    expected = read(data)
    ds = pydicom.dcmread(io.BytesIO(data))
    try:  # as words of 16 bits, so that the encoder keeps them all
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 0
        ds.compress(syntax, generate_instance_uid=False)
    except (RuntimeError, NotImplementedError):
        pytest.skip(f"nothing installed encodes {syntax.name}")
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, tags.get("HighBit", 11), tags.get("PixelRepresentation", 0)
    image = read(ds)
    np.testing.assert_array_equal(image.pixels, expected.pixels)
    assert image.info["decoder"]


def compressed(chest, dicom, syntax):
    ds = pydicom.dcmread(io.BytesIO(dicom(chest)))
    try:
        ds.compress(syntax, generate_instance_uid=False)
    except (RuntimeError, NotImplementedError):
        pytest.skip(f"nothing installed encodes {syntax.name}")
    return ds, next(generate_frames(ds.PixelData, number_of_frames=1))


@pytest.mark.parametrize("said", [JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGBaseline8Bit])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a08_a_stream_of_another_compression_is_called_so(chest, dicom, refused, put, syntax, said):
    ds, _ = compressed(chest, dicom, syntax)
    ds.file_meta.TransferSyntaxUID = said
    stream = io.BytesIO()
    ds.save_as(stream)
    if said == syntax:
        assert read(stream.getvalue()).pixels.shape == chest.shape
    else:
        assert "in another way than its transfer syntax says" in refused(stream.getvalue(), "E_DECODER")


def test_a08_rle_with_a_hole_that_shifts_the_rows_is_refused(chest, dicom, refused):
    ds, frame = compressed(chest, dicom, RLELossless)
    half = len(frame) // 2
    ds.PixelData = encapsulate([frame[:half] + b"\x81\x00" * 100 + frame[half + 20 :]])
    stream = io.BytesIO()
    ds.save_as(stream)
    refused(stream.getvalue(), "E_TRUNCATED")


def jpeg_film(chest, dicom, payload):
    ds = pydicom.dcmread(io.BytesIO(dicom((chest >> 4).astype(np.uint8), BitsAllocated=8, BitsStored=8, HighBit=7)))
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([payload])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds


@pytest.fixture
def jpeg(chest, raster):
    return raster((chest >> 4).astype(np.uint8), "JPEG", quality=90)


@pytest.mark.parametrize("inside", [False, True], ids=["file", "in DICOM"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2] + data[len(data) // 2 + 2000 :],
        lambda data: data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :],
        lambda data: data[: len(data) // 2] + b"\xff\xd9",
    ],
    ids=["hole", "zeros", "early end"],
)
def test_b01_a_jpeg_damaged_in_the_middle_is_refused(chest, dicom, jpeg, damage, inside, refused):
    assert read(jpeg_film(chest, dicom, jpeg) if inside else jpeg).pixels.shape == chest.shape
    with pytest.raises(InputError) as caught:
        read(jpeg_film(chest, dicom, damage(jpeg)) if inside else damage(jpeg))
    assert caught.value.code == "E_TRUNCATED"


@pytest.mark.parametrize("inside", [False, True], ids=["file", "in DICOM"])
def test_a06_filling_before_a_marker_is_no_damage(chest, dicom, jpeg, inside):
    filled = jpeg[:-2] + b"\xff" + jpeg[-2:]  # so does dcmtk where the length is odd
    films = [read(jpeg_film(chest, dicom, data) if inside else data) for data in (jpeg, filled)]
    np.testing.assert_array_equal(films[0].pixels, films[1].pixels)


def test_a06_filling_in_jpeg_ls_is_no_damage(chest, dicom):
    ds, frame = compressed(chest, dicom, JPEGLSLossless)
    expected = read(ds).pixels
    ds.PixelData = encapsulate([frame[: frame.rindex(b"\xff\xd9")] + b"\xff\xff\xd9"])
    np.testing.assert_array_equal(read(ds).pixels, expected)


def test_b01_a_jpeg_of_filling_alone_is_refused_at_once(refused):
    refused(b"\xff\xd8" + b"\xff" * (64 << 20), "E_TRUNCATED")


def test_b01_a_progressive_jpeg_without_its_last_scans_is_refused(chest, raster):
    data = raster((chest >> 4).astype(np.uint8), "JPEG", progressive=True)
    assert read(data).pixels.shape == chest.shape
    with pytest.raises(InputError, match="damaged"):
        read(data[: data.rindex(b"\xff\xda")] + b"\xff\xd9")


def test_b01_a_progressive_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded(chest, raster):
    data = raster((chest >> 4).astype(np.uint8), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(InputError, match=r"100\d scans") as caught:
        read(data[:-2] + 1000 * last + data[-2:])
    assert caught.value.code == "E_SIZE"


@pytest.mark.parametrize(
    ("marker", "words"),
    [(b"\xff\xc3", "a lossless JPEG"), (b"\xff\xf7", "a JPEG-LS picture"), (b"\xff\xc9", "an arithmetic JPEG")],
)
def test_b07_kinds_of_jpeg_are_named(jpeg, marker, words):
    with pytest.raises(InputError, match=words) as caught:
        read(jpeg.replace(b"\xff\xc0", marker, 1))
    assert caught.value.code == "E_FORMAT"


def test_b11_poor_negative_and_turned_films_are_named(chest, dicom):
    assert codes(read(dicom(chest, WindowCenter=3500, WindowWidth=600))) in (["W_WINDOW"], ["W_LOW_CONTRAST"])
    film = chest.astype(np.float32) / TOP
    assert codes(from_array(film)) == []
    for poor in (np.clip(film * 5, 0, 1), np.floor(film * 20) / 255):
        assert "W_LOW_CONTRAST" in codes(from_array(poor))
    assert codes(from_array(1 - film)) == ["W_NEGATIVE_FILM"]
    for turned in (film[::-1], np.rot90(film), np.rot90(film, 2), np.rot90(film, 3)):
        assert codes(from_array(turned)) == ["W_NOT_UPRIGHT"]
    for both in (1 - film[::-1], 1 - np.rot90(film), 1 - np.rot90(film, 3)):
        assert codes(from_array(both)) == ["W_NEGATIVE_FILM", "W_NOT_UPRIGHT"]
    assert codes(from_array(film[:, ::-1])) == []  # left and right are told by tags only


def coded(meaning):
    item = Dataset()
    item.CodeMeaning = meaning
    return item


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "PA", "SeriesDescription": "Chest PA and lateral"},
        {"ViewPosition": "", "ViewCodeSequence": [coded("postero-anterior")]},
        {"ViewPosition": "", "SeriesDescription": "CHEST PA/LAT"},
        {"AnatomicRegionSequence": [coded("Chest")], "StudyDescription": "Thorax and left shoulder"},
        {"BodyPartExamined": "CHEST", "StudyDescription": "Knee, chest"},
    ],
)
def test_a17_tags_of_a_frontal_chest_film_give_none(chest, dicom, tags):
    assert codes(read(dicom(chest, **tags))) == []


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "LL"},
        {"ViewPosition": "RLD"},
        {"ViewPosition": "LATERAL"},
        {"ViewPosition": "RAO"},
        {"ViewPosition": "", "ViewCodeSequence": [coded("right lateral")]},
        {"ViewPosition": "", "SeriesDescription": "W Chest Lat."},
        {"AnatomicRegionSequence": [coded("Hand")]},
        {"StudyDescription": "LEFT KNEE"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"},
        {"BodyPartExamined": "HAND"},
        {"Modality": "MG", "BodyPartExamined": "BREAST"},
        {"Modality": "CT", "PatientOrientation": None, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    ],
)
def test_a17_tags_that_name_no_frontal_chest_give_one_warning(chest, dicom, tags):
    found = codes(read(dicom(chest, **tags)))
    assert found[0] == "W_NOT_FRONTAL_CHEST"
    assert "W_NOT_UPRIGHT" not in found


def test_a09_frames_without_their_number_are_refused(chest, dicom, refused):
    refused(dicom(np.concatenate([chest, chest]), Rows=chest.shape[0]), "E_MULTIFRAME")
    ds = pydicom.dcmread(io.BytesIO(dicom(chest)))
    ds.compress(RLELossless, generate_instance_uid=False)
    one = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([one, one])
    with pytest.raises(InputError) as caught:
        read(ds)
    assert caught.value.code == "E_MULTIFRAME"


def test_b04_a_tinted_scan_is_grey_with_a_warning_and_a_coloured_one_refused(chest, raster, refused):
    grey = (chest >> 4).astype(np.float32)
    tinted = np.stack([grey * 0.9, grey * 0.97, grey], axis=2).astype(np.uint8)
    assert codes(read(raster(tinted))) == ["W_TINTED"]
    tinted[100:140, 100:140, 0] = 255  # a red mark
    refused(raster(tinted), "E_COLOR")


def test_films_from_memory(chest, dicom, raster, tmp_path):
    data = dicom(chest)
    (tmp_path / "film").write_bytes(data)
    expected = read(tmp_path / "film")
    with (tmp_path / "film").open("rb") as file:
        for source in (
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            file,
            pydicom.dcmread(io.BytesIO(data)),
        ):
            np.testing.assert_array_equal(read(source).pixels, expected.pixels)
    assert read(raster(chest)).pixels.shape == chest.shape
    film = chest[None] / TOP * 1.0000001
    assert from_array(film).pixels.shape == chest.shape
    with pytest.raises(InputError, match="Expected a path"):
        read(io.StringIO("words"))


def test_models_go_to_other_processes_and_threads(model, chest, clean):
    again = pickle.loads(pickle.dumps(model))
    assert (again.bundle.sha256, again.threads) == (model.bundle.sha256, model.threads)
    filters, masks = list(warnings.filters), []
    film = (chest << 4).astype(np.uint16)
    buffer = io.BytesIO()
    PILImage.fromarray(film).save(buffer, "PNG")
    threads = [threading.Thread(target=lambda: masks.append(again.segment(buffer.getvalue()).mask)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(masks) == 8
    assert all(np.array_equal(mask, clean) for mask in masks)
    assert warnings.filters == filters


@pytest.fixture
def child(monkeypatch):
    """Start the next decoder with another ``_decode``: ``child(expression)``; ``child()`` starts the usual one."""
    usual = decoder._CHILD.code
    fresh = Child(usual)
    monkeypatch.setattr(decoder, "_CHILD", fresh)

    def start(expression=None):
        fresh.stop()
        changed = "import os, time; from textray.io import decoder; decoder._decode = {}; decoder._serve()"
        fresh.code = usual if expression is None else changed.format(expression)

    yield start
    fresh.stop()


def rle(film, dicom):
    ds = pydicom.dcmread(io.BytesIO(dicom(film)))
    ds.compress(RLELossless, generate_instance_uid=False)
    return ds


@pytest.mark.parametrize(
    ("expression", "limit", "code", "words"),
    [
        ("lambda *_: os.abort()", None, "E_TRUNCATED", "decoder crashes"),
        ("lambda *_: time.sleep(60)", "0.2", "E_DECODER", "too long"),
    ],
)
def test_a08_a_decoder_that_crashes_or_hangs_refuses_one_film_only(
    chest, dicom, child, monkeypatch, expression, limit, code, words
):
    child(expression)
    if limit is not None:
        monkeypatch.setenv("TEXTRAY_DECODE_SECONDS", limit)
    with pytest.raises(InputError, match=words) as caught:
        read(rle(chest, dicom))
    assert caught.value.code == code
    monkeypatch.delenv("TEXTRAY_DECODE_SECONDS", raising=False)
    child()
    np.testing.assert_array_equal(read(rle(chest, dicom)).pixels, read(dicom(chest)).pixels)


def test_a08_an_interrupted_film_never_answers_for_the_next_one(chest, dicom, child, monkeypatch):
    child()
    receive, stopped = processes.receive, []

    def interrupted(stream):
        if not stopped and decoder._CHILD.process is not None and len(started) == 1:
            stopped.append(1)
            raise KeyboardInterrupt
        started.append(1)
        return receive(stream)

    started = []
    monkeypatch.setattr(processes, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(rle(chest, dicom))
    other = chest[::-1].copy()
    np.testing.assert_array_equal(read(rle(other, dicom)).pixels, read(dicom(other)).pixels)


def test_a08_a_decoder_runs_no_module_of_the_present_folder(chest, dicom, child, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("import os; os.abort()")
    monkeypatch.chdir(tmp_path)
    child()
    np.testing.assert_array_equal(read(rle(chest, dicom)).pixels, read(dicom(chest)).pixels)


def test_a19_the_size_of_a_stream_is_compared_before_it_is_decoded(chest, dicom, raster, refused):
    with pytest.raises(InputError, match="another size"):
        read(jpeg_film(chest, dicom, raster(np.zeros((8000, 8000), np.uint8), "JPEG")))

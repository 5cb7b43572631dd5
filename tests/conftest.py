"""Fixtures for every test.

- No test reaches the network: connections to other machines fail (`offline`, always on).
- Drawn films are kept in a cache folder that the tests of a worker share (`own_cache`, always on).
- `os.fsync` does nothing in this process, unless a test asks for ``real_fsync``.
- ``tiny_bundle``, ``writing_bundle``, ``film_bundle`` and ``grounding_bundle`` are shared by the session, so do not
  change them; ``make_bundle``, ``make_film_bundle`` and ``make_grounding_bundle`` build one of your own.
"""

import io
import json
import os
import shutil
import socket
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

sys.path.append(str(Path(__file__).parent))  # for what stands beside

from tiny_graphs import (
    GROUNDING_CELLS,
    GROUNDING_WORDS,
    TINY_SIZE,
    TINY_TOKENS,
    film_graph,
    grounding_graphs,
    onnx_model,
    tiny_graph,
)

# Several workers share the processors, and child processes inherit it; the networks of tests are too small for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Let only this machine be reached."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise OSError(f"tests are offline: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def quick_disk(request, monkeypatch):
    """Do not wait for the disk; a test that is about what a crash leaves asks for `real_fsync`."""
    if "real_fsync" not in request.fixturenames:
        monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def real_fsync():
    """Let `os.fsync` wait for the disk, as it does outside of tests."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep drawn films and decoded pixels for all tests of a worker, and out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def write_common(folder, preprocess, weights=None):
    """Write the files that every bundle has."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights or {"blur": np.ones((1, 1, 5, 5), np.float16)}, folder / "model.safetensors")
    (folder / "preprocess.json").write_text(json.dumps(preprocess.to_dict()))
    (folder / "README.md").write_text("# tiny\n\nA graph for tests.\n")
    (folder / "LICENSE").write_text("CC0\n")


def build_bundle(
    folder, *, reads_text=True, size=TINY_SIZE, tokens=TINY_TOKENS, zone_thresholds=None, preprocess=None, graph=None,
    bank=None, weights=None, **facts,
):  # fmt: skip
    """Write a whole bundle into ``folder`` and return it sealed; ``facts`` replace those of the tiny one.

    ``graph`` (ONNX bytes), ``weights`` and ``bank`` (``features`` and ``mask``) stand in place of the tiny ones.
    """
    from safetensors.numpy import save_file

    from textray.inference.bundle import seal
    from textray.preprocess import Preprocess

    write_common(folder, preprocess or Preprocess(size=(size, size)), weights)
    (folder / "model.onnx").write_bytes(graph or tiny_graph(size, reads_text, zone_thresholds))
    if reads_text:
        bits = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(np.float16)
        features = np.repeat(bits[:, None, :], tokens, axis=1)
        bank = bank or {"features": features, "mask": np.ones((64, tokens), np.uint8)}
        save_file(bank, folder / "text_bank.safetensors")
    tiny = {"name": "tiny", "version": "0", "model": "mmi_unet" if reads_text else "unet", "form": "paper"}
    tiny |= {"model_config": {}, "threshold": 0.5, "text_encoder": "tiny" if reads_text else None}
    return seal(folder, **tiny | {"provenance": {"data": "none"}, "zone_thresholds": zone_thresholds} | facts)


def build_grounding_bundle(
    folder, *, name="finder", laterality="viewer", sentences="caption", size=TINY_SIZE, letterbox=False, provenance=None
):
    """Write a whole grounding bundle into ``folder`` and return it sealed."""
    from textray.inference.bundle import GroundingText, seal_grounding
    from textray.preprocess import Preprocess
    from textray.records import Laterality
    from textray.text.tokens import Aggregation, build_vocabulary

    write_common(folder, Preprocess(size=(size, size), letterbox=letterbox))
    pieces = build_vocabulary([" ".join(GROUNDING_WORDS)], 200)
    text, image = grounding_graphs(size, pieces)
    (folder / "text.onnx").write_bytes(text)
    (folder / "image.onnx").write_bytes(image)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8", newline="\n")
    text = GroundingText(
        encoder="own", laterality=Laterality(laterality), lower=True, most_pieces=24, aggregation=Aggregation(),
        sentences=sentences,
    )  # fmt: skip
    about = {"name": name, "version": "0", "model": "sentence_grounding", "form": "paper", "model_config": {}}
    about |= {"provenance": provenance or {"data": "none"}}
    return seal_grounding(folder, **about, text=text, map_size=(GROUNDING_CELLS, GROUNDING_CELLS), width=4)


def build_film_bundle(folder, *, preprocess=None, change=("", ""), transpose=False, **facts):
    """Write a whole bundle of `tiny_graphs.film_graph` into ``folder`` and return it sealed."""
    from textray.inference.film import Bounds
    from textray.preprocess import Preprocess

    way = preprocess or Preprocess(size=(TINY_SIZE, TINY_SIZE), normalise="unit", transpose=transpose)
    bounds = Bounds(threshold=0.5, clear_above=0.6, zone_free_below=0.3, zone_ill_above=0.7)
    graph = film_graph(change=change, transpose=transpose)
    usual = {"name": "whole", "zone_thresholds": (0.5,) * 6, "text_free": "none", "bounds": bounds}
    return build_bundle(folder, graph=graph, preprocess=way, **usual | facts)


@pytest.fixture(scope="session")
def make_film_bundle():
    """Build a bundle that judges films: ``make_film_bundle(folder, *, preprocess, change, transpose, **facts)``."""
    return build_film_bundle


@pytest.fixture(scope="session")
def film_bundle(tmp_path_factory):
    """Folder of a bundle that judges films as a whole, hears denials and finds lungs."""
    return build_film_bundle(tmp_path_factory.mktemp("bundles") / "whole").folder


@pytest.fixture(scope="session")
def make_grounding_bundle():
    """Build one: ``make_grounding_bundle(folder, *, name, laterality, sentences, size, letterbox, provenance)``."""
    return build_grounding_bundle


@pytest.fixture(scope="session")
def grounding_bundle(tmp_path_factory):
    """Folder of weights that find the words left, right and bright, by the viewer's sides."""
    return build_grounding_bundle(tmp_path_factory.mktemp("bundles") / "finder").folder


@pytest.fixture(scope="session")
def make_bundle():
    """Build a bundle: ``make_bundle(folder, *, reads_text, size, zone_thresholds, graph, bank, **facts)``."""
    return build_bundle


@pytest.fixture
def changed(tmp_path):
    """Copy a bundle and change its config: ``changed(folder, **values)``; those of a table are changed one by one."""

    def change(folder, **values):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        config = json.loads((copy / "config.json").read_text())
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(config.get(key), dict)
            config[key] = config[key] | value if both else value
        (copy / "config.json").write_text(json.dumps(config))
        return copy

    return change


@pytest.fixture(scope="session")
def make_graph():
    """Write a graph of ONNX's text form: ``make_graph(text, constants) -> bytes``."""
    return onnx_model


@pytest.fixture(scope="session")
def writing_bundle(tmp_path_factory):
    """Folder of a bundle that writes its own report, of the zones that are bright."""
    folder = tmp_path_factory.mktemp("bundles") / "writing"
    return build_bundle(folder, name="writing", zone_thresholds=(0.5,) * 6).folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """Folder of a bundle, 64 x 64, whose answer depends on the picture and, by zone, on the text."""
    return build_bundle(tmp_path_factory.mktemp("bundles") / "tiny").folder


@pytest.fixture(scope="session")
def film():
    """Write a grey 8-bit picture: ``film(path, *, shape, spot, seed) -> path``; ``spot`` in shares of the size."""

    def draw(path, *, shape=(100, 80), spot=(0.25, 0.25), seed=0):
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        distance = ((rows / shape[0] - spot[0]) ** 2 + (columns / shape[1] - spot[1]) ** 2) / 0.02
        noise = np.random.default_rng(seed).integers(0, 20, shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray((200 * np.exp(-distance) + noise).astype(np.uint8)).save(path, format="PNG")
        return path

    return draw


@pytest.fixture(scope="session")
def drawn_qata(tmp_path_factory):
    """Folder of 40 drawn films, 48 x 61, in the layout of QaTa-COV19; shared, so do not change it."""
    from textray.data.phantom import Phantom

    return Phantom(n=40, size=(48, 61), seed=3).write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def ms_cxr(tmp_path):
    """Folder of MS-CXR with two sentences about one film, in the layout of release 1.0.0."""
    root, film = tmp_path / "ms_cxr", "files/p10/p10000032/s50414267/02aa804e.jpg"
    (root / film).parent.mkdir(parents=True)
    PILImage.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)).save(root / film)
    lines = ["category_name,label_text,path,x,y,w,h,image_width,image_height,dicom_id"]
    for category, text, x in (("Pneumonia", "opacity in the left lung", 30), ("Edema", "opacity in the right lung", 0)):
        lines.append(f"{category},{text},{film},{x},0,30,50,60,50,02aa804e")
    (root / "MS_CXR_Local_Alignment_v1.0.0.csv").write_text("\n".join(lines) + "\n")
    return root


PATIENT = ("DOE^JANE", "PID-4711", "19331224")


@pytest.fixture
def levels():
    """Unsigned levels, 90 x 70, that use the whole of 0..4095 and look different turned, flipped or transposed."""
    y, x = np.mgrid[:90, :70] / np.array([89, 69]).reshape(2, 1, 1)
    values = 0.6 * y + 0.3 * x + 0.1 * (((y - 0.3) / 0.2) ** 2 + ((x - 0.7) / 0.15) ** 2 < 1)
    return np.rint((values - values.min()) / np.ptp(values) * 4095).astype(np.uint16)


def build_dicom(levels, *, syntax="explicit", preamble=True, drop=(), **tags):
    """Bytes of a CR film of ``levels``; ``tags`` replace or add elements, ``drop`` removes them."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    little = syntax != "big endian"
    ds = Dataset()
    ds.SOPClassUID = uid.ComputedRadiographyImageStorage
    ds.SOPInstanceUID = uid.generate_uid(entropy_srcs=["textray"])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = PATIENT
    ds.Modality, ds.ViewPosition, ds.PatientOrientation = "CR", "PA", ["L", "F"]
    ds.PixelSpacing = [0.2, 0.3]
    ds.Rows, ds.Columns = levels.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = levels.astype(levels.dtype.newbyteorder("<" if little else ">")).tobytes()
    ds["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that no correct writer would write
        for keyword, value in tags.items():
            setattr(ds, keyword, value)
        for keyword in drop:
            delattr(ds, keyword)
        if preamble:
            ds.file_meta = FileMetaDataset()
            ds.file_meta.ImplementationClassUID, ds.file_meta.ImplementationVersionName = "1.2.3", "TESTED"
            ds.file_meta.TransferSyntaxUID = {
                "explicit": uid.ExplicitVRLittleEndian,
                "implicit": uid.ImplicitVRLittleEndian,
                "big endian": uid.ExplicitVRBigEndian,
                "deflated": uid.DeflatedExplicitVRLittleEndian,
            }[syntax]
            ds.save_as(buffer, enforce_file_format=True)
        else:
            ds.save_as(buffer, implicit_vr=syntax == "implicit", little_endian=little)
    return buffer.getvalue()


@pytest.fixture
def patient():
    """Name, number and birth date in each film of ``dicom``."""
    return PATIENT


@pytest.fixture(scope="session")
def dicom():
    """Bytes of a DICOM film: ``dicom(levels, *, syntax, preamble, drop, **tags)``."""
    return build_dicom


@pytest.fixture(scope="session")
def raster():
    """Bytes of a picture: ``raster(levels, kind="PNG", *, orientation=None, **options)``; levels or a Pillow image."""

    def build(levels, kind="PNG", *, orientation=None, **options):
        picture = levels if isinstance(levels, PILImage.Image) else PILImage.fromarray(levels)
        if orientation is not None:
            options["exif"] = PILImage.Exif()
            options["exif"][0x0112] = orientation
        buffer = io.BytesIO()
        picture.save(buffer, format=kind, **options)
        return buffer.getvalue()

    return build


@dataclass(frozen=True)
class CliResult:
    code: int
    out: str
    err: str

    @property
    def rows(self):
        """Lines of the standard output as JSON."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run the command line in this process: ``cli("segment", path, ...) -> CliResult``."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("TEXTRAY_TRACEBACK", raising=False)

    def run(*args):
        from textray.cli import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return CliResult(code=int(stop.value.code or 0), out=captured.out, err=captured.err)

    return run


@pytest.fixture
def train(cli, monkeypatch):
    """Run `textray train` in this process: ``train("--config", path, ...) -> CliResult``.

    What Lightning says to a user on the way is no error; the test needs ``filterwarnings("ignore")`` for it.
    """
    monkeypatch.setattr("sys.argv", ["textray"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    return lambda *args: cli("train", *args)


class Parsed(Exception):  # noqa: N818 -- carries a result, not a failure
    """A training's configuration, before anything of it is built."""


@pytest.fixture(scope="session")
def parsed():
    """Arguments that were parsed before, and what they came to; parsing is most of the tests of recipes."""
    return {}


@pytest.fixture
def parse(train, parsed, monkeypatch, tmp_path):
    """What `textray train` would build from these arguments: ``parse(*arguments) -> dict``, not to be changed."""
    monkeypatch.chdir(tmp_path)

    def stop(self):
        raise Parsed(self.parser.dump(self.config, skip_none=False))

    def run(*arguments):
        if arguments not in parsed:
            pytest.importorskip("lightning")
            import yaml

            from textray.training import cli

            monkeypatch.setattr(cli.TrainCLI, "instantiate_classes", stop)
            with pytest.raises(Parsed) as found:
                cli.main(list(arguments))
            parsed[arguments] = yaml.safe_load(found.value.args[0])
        return parsed[arguments]

    return run


@pytest.fixture
def run(cli, tiny_bundle, tmp_path, monkeypatch):
    """Run ``textray segment`` with the tiny bundle in ``tmp_path``: ``run(path, ...) -> CliResult``."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("segment", *args, "--model", tiny_bundle, "--threads", "1")

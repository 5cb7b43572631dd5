"""Checkpoints from elsewhere are read without running anything in them, and refused where they are none."""

import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.numpy import load_file

from textray.errors import DiskError, InputError, UsageError
from textray.export import unpickle
from textray.export.unpickle import read_published


def tensors():
    whole = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    state = OrderedDict({"model.weight": whole, "model.turned": whole.t()[2:5, ::2], "model.half": whole[0].half()})
    state |= {"model.count": torch.tensor(7), "model.flags": torch.tensor([True, False])}
    state |= {"model.parameter": torch.nn.Parameter(torch.ones(2, 2)), "model.empty": torch.zeros(0, 4)}
    state._metadata = OrderedDict(version=1)  # as Module.state_dict leaves it
    return state


def save(path, extra=(), **options):
    content = {"epoch": 41, "pytorch-lightning_version": "1.9.0", "state_dict": tensors(), **dict(extra)}
    torch.save(content, path, **options)
    return path


def check_tensors(folder):
    arrays, wanted = load_file(folder / unpickle.TENSORS), tensors()
    assert set(arrays) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(arrays[name], value.detach().numpy())
        assert arrays[name].dtype == value.detach().numpy().dtype


@pytest.fixture
def folder(tmp_path):
    """An empty folder for what the process writes."""
    made = tmp_path / "child"
    made.mkdir()
    return made


@pytest.fixture
def path(tmp_path):
    """A checkpoint to write."""
    return tmp_path / "a.ckpt"


def refused(path, folder, match="", codes=("E_FORMAT",)):
    with pytest.raises(InputError, match=match) as caught:
        unpickle.read(path, folder)
    assert caught.value.code in codes
    assert not any(folder.iterdir())


def test_tensors_and_facts_come_through_the_process(folder, tmp_path):
    odd = "a\n# mine.ckpt"
    found = read_published(save(tmp_path / odd), folder)
    check_tensors(folder)
    assert found.facts == {"epoch": 41, "pytorch-lightning_version": "1.9.0"}
    assert found.nbytes == (tmp_path / odd).stat().st_size
    assert (found.other, found.skipped) == ((), ())
    assert found.name == "a?# mine.ckpt"  # cannot break a line of the card


def test_foreign_objects_of_real_checkpoints_are_skipped(folder, path, monkeypatch):
    """MMI-UNet's and GuideDecoder's hold a dictionary of a class of their own, and metrics; others NumPy's numbers."""
    module = types.ModuleType("vanished_configs")

    class Config(dict):
        def __init__(self, value):
            super().__init__(value=value)
            self.flags = {"nested": [1, 2]}

    class Metric:
        def __init__(self):
            self.reduce = {"sum": np.mean}

    class Slotted:
        __slots__ = ("a",)

    slotted = Slotted()
    slotted.a = 1
    for kind in (Config, Metric, Slotted):
        kind.__module__, kind.__qualname__ = "vanished_configs", kind.__name__
        setattr(module, kind.__name__, kind)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vanished_configs", module)
        hyper = {"args": Config(Config(3)), "metrics": {"acc": Metric()}, "slotted": slotted}
        scores = {"best": np.float32(0.3), "all": np.arange(3), "where": path, "set": {1}}
        save(path, {"hyper_parameters": hyper, "callbacks": {Metric: scores}})
    skipped = unpickle.read(path, folder)["skipped"]
    check_tensors(folder)
    assert {f"vanished_configs.{name}" for name in ("Config", "Metric", "Slotted")} <= set(skipped)
    assert "numpy.dtype" in skipped


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_entries_that_are_no_tensors_are_named_and_strange_facts_left_out(folder, path):
    state = tensors() | {"model.extra_state": {"a": 1}, "model.sparse": torch.eye(3).to_sparse()}
    torch.save({"epoch": 3, "pytorch-lightning_version": "1.9\n# mine", "state_dict": state}, path)
    told = unpickle.read(path, folder)
    assert (told["other"], told["facts"]) == (["model.extra_state", "model.sparse"], {"epoch": 3})
    check_tensors(folder)


MALICE = {
    "os.system": lambda m: (os.system, f"touch {m}"),
    "eval": lambda m: (eval, f"open({str(m)!r}, 'w').close()"),
    "open": lambda m: (open, str(m), "w"),
    "subprocess": lambda m: (subprocess.call, ["touch", str(m)]),
    "hub": lambda m: (torch.hub.load, "evil/repository", "model"),
    "allow": lambda m: (torch.serialization.add_safe_globals, [subprocess.call]),
}


@pytest.mark.parametrize("kind", MALICE)
def test_a_malicious_object_runs_nothing(folder, path, tmp_path, runs, kind):
    marker, before = tmp_path / "marker", set(torch.serialization.get_safe_globals())
    function, *arguments = MALICE[kind](marker)
    attack = runs(function, *arguments)
    refusal = "names a function of the operating system. Got posix" if kind == "os.system" else None
    save(path, {"hyper_parameters": attack})
    if refusal:
        refused(path, folder, refusal)
    else:
        assert any(name.endswith(f".{function.__name__}") for name in unpickle.read(path, folder)["skipped"])
        (folder / unpickle.TENSORS).unlink()
    save(path, {"state_dict": attack})
    refused(path, folder, refusal or "no state_dict")
    assert not marker.exists()
    assert set(torch.serialization.get_safe_globals()) == before
    # The same bytes read by a plain unpickler do run: else this test would prove nothing.
    if kind in {"os.system", "eval"}:
        pickle.loads(pickle.dumps(attack))
        assert marker.exists()


CONTENTS = {
    "html": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a text that stands in for the file"),
    "empty": (b"", "an empty file"),
    "text": (b"version 1\nnothing here\n", "a text"),
    "pickle": (pickle.dumps({"state_dict": {}}), "a bare pickle"),
    "noise": (bytes(range(255, 128, -1)) * 4, "unknown bytes"),
    "tar": (b"storages".ljust(257, b"\0") + b"ustar\x00" + bytes(249), r"before 2020.*torch\.save\(torch\.load"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_no_checkpoint_is_refused_by_name(folder, path, kind):
    path.write_bytes(CONTENTS[kind][0])
    refused(path, folder, CONTENTS[kind][1])


def test_other_forms_of_torch_are_refused_with_the_remedy(folder, path):
    save(path, _use_new_zipfile_serialization=False)
    refused(path, folder, r"before 2020.*save it again in a current torch: torch\.save\(torch\.load\(path\), new\)")
    save(path, pickle_protocol=5)
    refused(path, folder, r"protocol 2\. Got Unsupported operand.*save it again in a current torch")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/constants.pkl", b"")
    refused(path, folder, "TorchScript")


def test_a_cut_off_or_damaged_file_is_refused(folder, path):
    whole, weight = save(path).read_bytes(), tensors()["model.weight"].numpy().tobytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, folder, "cut off", ("E_TRUNCATED",))
    path.write_bytes(whole.replace(weight, weight[:-1] + b"\xff"))
    refused(path, folder, "damaged", ("E_TRUNCATED",))


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """Write a zip checkpoint again, entry by entry through ``change(name, data) -> data``."""
    with zipfile.ZipFile(path) as old:
        entries = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in entries.items():
            new.writestr(name, change(name, data))


def test_archives_that_torch_never_writes_are_refused(folder, path):
    rewrite(save(path), lambda name, data: data, zipfile.ZIP_DEFLATED)
    refused(path, folder, "compressed")
    rewrite(save(path), lambda name, data: bytes(2**26) if name.endswith("data.pkl") else data)
    refused(path, folder, "impossible size", ("E_SIZE",))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme", b"")
    refused(path, folder, "zip archive, but no checkpoint")


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def number(value):
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor_call(storage_numel=4, offset=0, size=(2, 2), stride=(2, 1)):
    """Program of a tensor that claims what is given; protocol 2 by hand, as torch writes it."""
    many = [b"(" + b"".join(number(value) for value in values) + b"t" for values in (size, stride)]
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(storage_numel)
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + number(offset) + many[0] + many[1]
    return call + b"\x89ccollections\nOrderedDict\n)RtR"


def checkpoint_of(program, root=b"}"):
    return b"\x80\x02" + root + text("state_dict") + b"}" + text("w") + program + b"ss."


def with_pickle(path, content):
    torch.save({"state_dict": {"w": torch.zeros(4)}}, path)
    rewrite(path, lambda name, data: content if name.endswith("data.pkl") else data)


def test_the_hand_made_pickle_is_one(folder, path):
    with_pickle(path, checkpoint_of(tensor_call()))
    unpickle.read(path, folder)
    np.testing.assert_array_equal(load_file(folder / unpickle.TENSORS)["w"], np.zeros((2, 2)))


@pytest.mark.parametrize(
    "claim",
    [
        (4, 3, (2,), (1,)),
        (4, 0, (2, 3), (3, 1)),
        (4, -1, (1,), (1,)),
        (4, 0, (2,), (-1,)),
        (4, 0, (-1,), (1,)),
        (4, 0, (2**40,), (0,)),
        (4, 0, (8,), (0,)),
        (2**40, 0, (2**40,), (1,)),
        (8, 0, (8,), (1,)),
        (2, 0, (2,), (1,)),
        (-4, 0, (0,), (1,)),
        (4, 0, (2, 2), (1,)),
        (4, 2**62, (1,), (1,)),
    ],
)
def test_lies_about_sizes_are_refused(folder, path, claim):
    with_pickle(path, checkpoint_of(tensor_call(*claim)))
    refused(path, folder, "a tensor of|tensors are too large", ("E_FORMAT", "E_SIZE"))


TYPED = b"ctorch._tensor\n_rebuild_from_type_v2\n("


def test_methods_that_a_pickle_gives_to_objects_are_not_called(folder, path):
    """BUILD sets attributes of dictionaries, and torch those of tensors; neither is trusted to tell of itself."""
    names = ("get", "items", "keys", "clone", "numel", "detach")
    attributes = b"}(" + b"".join(text(name) + b"cforeign\nname\n" for name in names) + b"u"
    function, _, arguments = tensor_call().removesuffix(b"R").partition(b"(")
    tensor = TYPED + function + b"ctorch\nTensor\n(" + arguments + attributes + b"tR"
    with_pickle(path, checkpoint_of(tensor, root=b"ccollections\nOrderedDict\n)R")[:-1] + attributes + b"b.")
    assert unpickle.read(path, folder)["skipped"] == ["foreign.name"]
    np.testing.assert_array_equal(load_file(folder / unpickle.TENSORS)["w"], np.zeros((2, 2)))


OUTSIDE = tensor_call(4, 3, (2,), (1,)).partition(b"(")[2].partition(b"\x89")[0]


@pytest.mark.parametrize(
    "program",
    {
        "nested": b"cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R)R",
        "other type": TYPED + b"csubprocess\ncall\nctorch\nTensor\n" + text("x") + b"\x85}tR",
        "set outside": b"ctorch\nTensor\n)R(" + OUTSIDE + b"tb",
        "state": tensor_call() + b"}" + text("offset") + b"K\x7fsb",
        "extension": b"\x82\x01",
        "name by stack": b"\x8c\x08builtins\x8c\x04eval\x93",
        "instance": b"(S'touch'\nios\nsystem\n",
        "mark": b"t",
        "memo": b"h\x07",
        "storage by number": b"K\x07Q",
        "name of other bytes": b"c\xff\xfe\nx\n",
        "many names": b"(" + b"".join(b"cmodule\nname%d\n" % i for i in range(2000)) + b"t",
    }.items(),
    ids=lambda case: case[0],
)
def test_programs_that_no_checkpoint_holds_are_refused(folder, path, program):
    with_pickle(path, checkpoint_of(program[1]))
    refused(path, folder, "pickle|a tensor of the checkpoint")


@pytest.mark.parametrize("program", [b"", b"\x80\x02", b"\x80\x02X\xff\xff\xff\xff"])
def test_a_pickle_that_is_cut_off_is_refused(folder, path, program):
    with_pickle(path, program)
    refused(path, folder, "cut off", ("E_TRUNCATED",))


def test_refusals_of_memory_come_through_the_process(folder, path):
    """Two times the memory that the process may take, of which nothing is ever touched."""
    with_pickle(path, checkpoint_of(b"cbuiltins\nbytearray\n" + number(2 * unpickle.MOST_MEMORY) + b"\x85R"))
    with pytest.raises(InputError, match=r"^a\.ckpt: the checkpoint needs too much memory.*Download it") as caught:
        read_published(path, folder)
    assert (caught.value.code, caught.value.exit_code) == ("E_SIZE", 3)


def test_deep_nesting_is_no_crash(folder, path):
    with_pickle(path, b"\x80\x02}" + text("deep") + b")" + b"\x85" * 200_000 + b"s" + checkpoint_of(tensor_call())[3:])
    unpickle.read(path, folder)


@pytest.mark.parametrize(
    ("place", "name", "value", "match", "code"),
    [
        (unpickle, "MOST_SECONDS", 0.01, "in time", "E_SIZE"),
        (unpickle.sys, "executable", "/bin/false", "without an answer", "E_FORMAT"),
    ],
)
def test_a_process_that_takes_too_long_or_dies_is_an_answer(folder, path, monkeypatch, place, name, value, match, code):
    monkeypatch.setattr(place, name, value)
    with pytest.raises(InputError, match=match) as caught:
        read_published(save(path), folder)
    assert caught.value.code == code


def test_files_that_cannot_be_read_are_a_matter_of_usage(folder, path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(UsageError, match="no such checkpoint"):
        read_published(path, folder)
    save(path)
    if sys.platform == "linux":  # others have no such names
        odd = path.with_name(os.fsdecode(b"\xff.ckpt"))
        os.link(path, odd)
        with pytest.raises(UsageError, match="Rename it"):
            read_published(odd, folder)
    monkeypatch.setattr(unpickle.Path, "open", refuse)
    with pytest.raises(UsageError, match=r"a\.ckpt cannot be read\. Got Permission denied"):
        read_published(path, folder)


def test_a_full_disk_is_not_taken_for_a_bad_file(folder, path):
    """A folder in place of the file to write stands for a disk that fails."""
    (folder / unpickle.TENSORS).mkdir()
    with pytest.raises(DiskError, match="tensors could not be written") as caught:
        read_published(save(path), folder)
    assert (caught.value.code, caught.value.exit_code) == ("E_DISK", 1)


WALL = """
import os, pickle, shutil, socket, subprocess, sys
from textray.export import unpickle

def act(words):
    unpickle._build_walls(0, sys.argv[1])
    open(sys.argv[1] + "/inside", "w").close()
    open(__file__).close()
    import colorsys
    exec(words)

for words in sys.argv[2:]:
    if not (process := os.fork()):
        act(words)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""
ACTS = (
    "pass",
    "os.system('true')",
    "subprocess.run(['true'])",
    "socket.socket()",
    "pickle.loads(b'cbuiltins\\nlen\\n.')",
    "open(sys.argv[1] + '/../outside', 'w')",
    "os.open(sys.argv[1] + '/../outside', os.O_WRONLY | os.O_CREAT)",
    "os.remove(__file__)",
    "os.rename(__file__, __file__ + '2')",
    "shutil.rmtree(sys.argv[1])",
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_second_wall_ends_the_process(folder, tmp_path):
    """What the unpickler never does would end the process if it did; reading, and writing inside, do not."""
    (tmp_path / "act.py").write_text(WALL)
    done = subprocess.run([sys.executable, tmp_path / "act.py", folder, *ACTS], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["0"] + ["70"] * (len(ACTS) - 1), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["act.py", "child"]

"""Checkpoints from elsewhere are read without running anything in them, and refused where they are none."""

import contextlib
import io
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
from textray.importer import checkpoint as parent
from textray.importer import child, inert
from textray.importer.checkpoint import read_published


def tensors():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(6, 8, generator=generator)
    state = OrderedDict(
        {
            "model.weight": whole,
            "model.turned": whole.t()[2:5, ::2],
            "model.half": torch.randn(3, generator=generator).half(),
            "model.count": torch.tensor(7),
            "model.flags": torch.tensor([True, False]),
            "model.parameter": torch.nn.Parameter(torch.ones(2, 2)),
            "model.empty": torch.zeros(0, 4),
        }
    )
    state._metadata = OrderedDict(version=1)  # as Module.state_dict leaves it
    return state


def save(path, extra=(), **options):
    torch.save(
        {"epoch": 41, "pytorch-lightning_version": "1.9.0", "state_dict": tensors(), **dict(extra)}, path, **options
    )
    return path


def check(folder_of, path):
    found = read_published(path, folder_of)
    arrays = load_file(found.tensors)
    wanted = tensors()
    assert set(arrays) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(arrays[name], value.detach().numpy())
        assert arrays[name].dtype == value.detach().numpy().dtype
    return found


@pytest.fixture
def folder(tmp_path):
    """An empty folder for what the child writes."""
    made = tmp_path / "child"
    made.mkdir()
    return made


def test_tensors_and_facts_come_through(folder, tmp_path):
    found = check(folder, save(tmp_path / "a.ckpt"))
    assert found.facts == {"epoch": 41, "pytorch-lightning_version": "1.9.0"}
    assert found.nbytes == (tmp_path / "a.ckpt").stat().st_size
    assert found.other == ()


def test_a_class_that_is_not_installed_is_skipped(folder, tmp_path, monkeypatch):
    module = types.ModuleType("vanished_configs")

    class Config(dict):
        def __init__(self, value):
            super().__init__(value=value)
            self.flags = {"nested": [1, 2]}

    class Steps(list):
        pass

    for kind in (Config, Steps):
        kind.__module__, kind.__qualname__ = "vanished_configs", kind.__name__
        setattr(module, kind.__name__, kind)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vanished_configs", module)
        save(tmp_path / "a.ckpt", {"hyper_parameters": Config(3), "loops": {"steps": Steps([1, Steps()])}})
    found = check(folder, tmp_path / "a.ckpt")
    assert {"vanished_configs.Config", "vanished_configs.Steps"} <= set(found.skipped)


class Runs:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def marker_calls(marker):
    import subprocess

    return {
        "os.system": Runs(os.system, f"touch {marker}"),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w').close()"),
        "open": Runs(open, str(marker), "w"),
        "subprocess": Runs(subprocess.call, ["touch", str(marker)]),
        "nested": Runs(getattr, Runs(__import__, "os"), "system"),
    }


@pytest.mark.parametrize("kind", ["os.system", "eval", "open", "subprocess", "nested"])
def test_a_malicious_object_runs_nothing(folder, tmp_path, kind):
    marker = tmp_path / "marker"
    save(tmp_path / "a.ckpt", {"hyper_parameters": marker_calls(marker)[kind]})
    found = check(folder, tmp_path / "a.ckpt")
    assert not marker.exists()
    assert any(name.endswith((".system", ".eval", ".open", ".call", ".getattr")) for name in found.skipped)
    # The same bytes read by a plain unpickler do run: else this test would prove nothing.
    if kind in {"os.system", "eval"}:
        pickle.loads(pickle.dumps(marker_calls(marker)[kind]))
        assert marker.exists()


@pytest.mark.parametrize("kind", ["os.system", "eval"])
def test_a_malicious_state_dict_is_refused_and_runs_nothing(folder, tmp_path, kind):
    marker = tmp_path / "marker"
    torch.save({"state_dict": marker_calls(marker)[kind]}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="no state_dict"):
        read_published(tmp_path / "a.ckpt", folder)
    assert not marker.exists()
    assert not (folder / "tensors.safetensors").exists()


def test_names_in_the_state_dict_that_are_no_tensors_are_told(folder, tmp_path):
    state = tensors()
    state["model.extra_state"] = {"a": 1}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert read_published(tmp_path / "a.ckpt", folder).other == ("model.extra_state",)


CONTENTS = {
    "html": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "E_FORMAT", "an HTML page"),
    "empty": (b"", "E_FORMAT", "an empty file"),
    "text": (b"version 1\nnothing here\n", "E_FORMAT", "a text"),
    "pickle": (pickle.dumps({"state_dict": {}}), "E_FORMAT", "a bare pickle"),
    "noise": (bytes(range(255, 128, -1)) * 4, "E_FORMAT", "unknown bytes"),
}


def test_a_refusal_comes_through_the_process(folder, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(CONTENTS["html"][0])
    with pytest.raises(InputError, match=r"a\.ckpt: the file is no checkpoint\. Got an HTML page") as caught:
        read_published(tmp_path / "a.ckpt", folder)
    assert (caught.value.code, caught.value.exit_code) == ("E_FORMAT", 3)


def test_the_form_of_before_2020_is_refused_with_the_way_out(folder, tmp_path):
    save(tmp_path / "a.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before torch 1\.6 .* save it again with torch\.save") as caught:
        read_published(tmp_path / "a.ckpt", folder)
    assert caught.value.code == "E_FORMAT"


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_no_checkpoint_is_refused_by_name(folder, tmp_path, kind):
    content, code, told = CONTENTS[kind]
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        child.read(tmp_path / "a.ckpt", folder)
    assert caught.value.code == code


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_off_file_is_refused(folder, tmp_path, share):
    whole = save(tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError) as caught:
        child.read(tmp_path / "a.ckpt", folder)
    assert caught.value.code in {"E_TRUNCATED", "E_FORMAT"}


def test_a_missing_file_is_a_matter_of_usage(folder, tmp_path):
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_published(tmp_path / "none.ckpt", folder)


def rewrite(path, change):
    """Write a zip checkpoint again, entry by entry through ``change(name, data) -> data``."""
    with zipfile.ZipFile(path) as old:
        entries = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in entries.items():
            new.writestr(name, change(name, data))


def rebuild_call(storage_numel, offset, size, stride):
    """Pickle of ``{"state_dict": {"w": tensor}}`` whose tensor claims what is given; protocol 2 by hand."""

    def number(value):
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw

    def text(word):
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    def many(values):
        return b"(" + b"".join(number(value) for value in values) + b"t"

    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(storage_numel) + b"tQ"
    )
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + many(size) + many(stride)
    call += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("state_dict") + b"}" + text("w") + call + b"ss."


def with_pickle(path, content):
    torch.save({"state_dict": {"w": torch.zeros(4)}}, path)
    rewrite(path, lambda name, data: content if name.endswith("data.pkl") else data)


def test_the_hand_made_pickle_is_one(folder, tmp_path):
    with_pickle(tmp_path / "a.ckpt", rebuild_call(4, 0, (2, 2), (2, 1)))
    child.read(tmp_path / "a.ckpt", folder)
    np.testing.assert_array_equal(load_file(folder / child.TENSORS)["w"], np.zeros((2, 2)))


@pytest.mark.parametrize(
    "claim",
    [
        (4, 3, (2,), (1,)),
        (4, 0, (2, 3), (3, 1)),
        (4, -1, (1,), (1,)),
        (4, 0, (2,), (-1,)),
        (4, 0, (2**40,), (0,)),
        (2**40, 0, (2**40,), (1,)),
        (8, 0, (8,), (1,)),
        (2, 0, (2,), (1,)),
        (4, 0, (2, 2), (1,)),
        (4, 2**70, (1,), (1,)),
    ],
)
def test_lies_about_sizes_are_refused(folder, tmp_path, claim):
    with_pickle(tmp_path / "a.ckpt", rebuild_call(*claim))
    with pytest.raises(InputError) as caught:
        child.read(tmp_path / "a.ckpt", folder)
    assert caught.value.code in {"E_FORMAT", "E_SIZE", "E_TRUNCATED"}


def test_a_view_cannot_be_changed_after_its_check(folder, tmp_path):
    """BUILD sets attributes of an object that was made; a tensor's offset must not be one."""
    good = rebuild_call(4, 0, (2, 2), (2, 1))
    assert good.endswith(b"RtRss.")
    for state in (b"}X\x06\x00\x00\x00offsetK\x7fs", b"N}X\x06\x00\x00\x00offsetK\x7fs\x86"):
        with_pickle(tmp_path / "a.ckpt", good[:-3] + state + b"bss.")
        with pytest.raises(InputError):
            child.read(tmp_path / "a.ckpt", folder)


def test_compressed_entries_are_refused(folder, tmp_path):
    save(tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as old:
        entries = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in entries.items():
            new.writestr(name, data)
    with pytest.raises(InputError, match="compressed"):
        child.read(tmp_path / "a.ckpt", folder)


def test_a_child_that_takes_too_long_is_ended(folder, tmp_path):
    with pytest.raises(InputError, match="in time") as caught:
        read_published(save(tmp_path / "a.ckpt"), folder, seconds=0.01)
    assert caught.value.code == "E_SIZE"


def test_a_child_that_dies_is_an_answer(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parent.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="without an answer"):
        read_published(save(tmp_path / "a.ckpt"), folder)


def test_a_file_that_cannot_be_read_is_a_matter_of_usage(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    save(tmp_path / "a.ckpt")
    monkeypatch.setattr(parent.Path, "open", refuse)
    with pytest.raises(UsageError, match=r"a\.ckpt cannot be read\. Got Permission denied"):
        read_published(tmp_path / "a.ckpt", folder)


def test_a_full_disk_is_not_taken_for_a_bad_file(folder, tmp_path):
    """A folder in place of the file to write stands for a disk that fails."""
    (folder / child.TENSORS).mkdir()
    with pytest.raises(DiskError, match="its tensors not written") as caught:
        read_published(save(tmp_path / "a.ckpt"), folder)
    assert caught.value.code == "E_DISK"


def test_thousands_of_foreign_names_do_not_fill_the_report(folder, tmp_path):
    save(tmp_path / "a.ckpt")
    names = b"".join(b"cmodule\nname%d\n0" % i for i in range(5000))
    rewrite(tmp_path / "a.ckpt", lambda name, data: data[:2] + names + data[2:] if name.endswith("data.pkl") else data)
    found = check(folder, tmp_path / "a.ckpt")
    assert len(found.skipped) == 201
    assert "..." in found.skipped


def test_the_name_of_the_file_cannot_break_a_line_of_the_card(folder, tmp_path):
    odd = os.fsdecode(b"a\n# mine \xff.ckpt")
    try:
        save(tmp_path / "a.ckpt").rename(tmp_path / odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert read_published(tmp_path / odd, folder).name == "a?# mine ?.ckpt"


def test_facts_that_would_break_a_line_are_left_out(folder, tmp_path):
    torch.save({"epoch": 3, "pytorch-lightning_version": "1.9\n# mine", "state_dict": tensors()}, tmp_path / "a.ckpt")
    assert read_published(tmp_path / "a.ckpt", folder).facts == {"epoch": 3}


WALL = """
import sys
from textray.importer import child, inert
child._build_wall(sys.argv[1])
open(sys.argv[1] + "/inside", "w").close()
print("wrote inside", flush=True)
{act}
print("went on", flush=True)
"""


@pytest.mark.parametrize(
    "act",
    [
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "import pickle; pickle.loads(b'cbuiltins\\nlen\\n.')",
        "open(sys.argv[1] + '/../outside', 'w')",
        "import os; os.open(sys.argv[1] + '/../outside', os.O_WRONLY | os.O_CREAT)",
        "import os; os.remove(__file__)",
        "import os; os.rename(__file__, __file__ + '2')",
        "import shutil; shutil.rmtree(sys.argv[1])",
    ],
)
def test_the_second_wall_ends_the_process(folder, tmp_path, act):
    """What the unpickler never does would end the process if it did."""
    (tmp_path / "act.py").write_text(WALL.format(act=act))
    done = subprocess.run([sys.executable, tmp_path / "act.py", folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (70, "wrote inside\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["act.py", "child"]


def test_reading_is_allowed_by_the_second_wall(folder, tmp_path):
    (tmp_path / "act.py").write_text(WALL.format(act="open(__file__).close(); import colorsys"))
    done = subprocess.run([sys.executable, tmp_path / "act.py", folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "wrote inside\nwent on\n")


@pytest.mark.parametrize(
    "program",
    [
        # the class of ordered dictionaries, and of placeholders, given attributes
        b"ccollections\nOrderedDict\n}X\x06\x00\x00\x00updateNsb.",
        b"cos\nsystem\n}X\x0c\x00\x00\x00__setstate__Nsb.",
        # the function that rebuilds tensors, given another class
        b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x09\x00\x00\x00__class__cos\nsystem\ns\x86b.",
        # a type of storage given another size of its elements
        b"ctorch\nFloatStorage\nN}X\x08\x00\x00\x00itemsizeK\x01s\x86b.",
        # names by attribute, by extension, by copyreg
        b"\x80\x04\x8c\x08builtins\x8c\x0dobject.__dir__\x93.",
        b"\x82\x01.",
        b"ccopyreg\n_reconstructor\n(cos\nsystem\ncbuiltins\nobject\nNtR.",
    ],
)
def test_no_program_changes_the_reader(program):
    with contextlib.suppress(InputError):
        inert.load(io.BytesIO(program), set())
    view = inert.load(io.BytesIO(b"ctorch\nSize\n(K\x02K\x03\x86tR."), set())
    assert view == (2, 3)
    assert isinstance(inert._ALLOWED["torch._utils", "_rebuild_tensor_v2"], inert._Rebuild)
    assert inert._ALLOWED["torch", "FloatStorage"] == ("F32", 4)
    assert inert.Mapping.update is dict.update

import os

import pytest

from textray.errors import OutputError, UsageError
from textray.inference.inputs import collect
from textray.io.files import mark, stem


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(items):
    return [(item.folder / item.name).as_posix() for item in items]


@pytest.mark.parametrize(
    ("files", "given", "found"),
    [
        ("in/b.png in/a/2.dcm in/a/1 in/.hidden.png in/.git/x.png", ["in"], ["a/1", "a/2", "b"]),  # sorted, mirrored
        ("in/a/2.dcm", ["in/a/2.dcm", "in"], ["2"]),  # a named file goes to the top
        ("in/a/2.png in/b/3.png in/b/notes.txt in/c/d/4.png", ["in/**/*.png"], ["a/2", "b/3", "c/d/4"]),
        ("in/a/2.png in/b/3.png in/b/notes.txt in/c/d/4.png", ["in/[ab]"], ["a/2", "b/3", "b/notes.txt"]),
        ("in[1].png", ["in[1].png"], ["in[1]"]),  # a name that looks like a pattern
    ],
)
def test_files_folders_and_patterns(tmp_path, files, given, found):
    touch(tmp_path, *files.split())
    items, left_out = collect([tmp_path / one for one in given], tmp_path / "out")
    assert (names(items), left_out) == (found, [])
    assert [item.named for item in items] == [(tmp_path / given[0]).is_file()] * len(items)


def test_clashing_names_part_by_a_mark(tmp_path):
    touch(tmp_path, "in/a.dcm", "in/a.png", "in/run.png", "other/A.PNG")
    items, _ = collect([tmp_path / "in", tmp_path / "other"], tmp_path / "out")
    marks = [mark(tmp_path / name) for name in ("in/a.png", "in/run.png", "other/A.PNG")]
    assert names(items) == ["a", f"a-{marks[0]}", f"run-{marks[1]}", f"A-{marks[2]}"]  # run.json is the summary


def test_loops_pipes_and_broken_links_are_left_out_without_a_hang(tmp_path):
    touch(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/broken.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "in/pipe.png")
    items, left_out = collect([tmp_path / "in"], tmp_path / "out")
    assert names(items) == ["a", "linked/b"]
    assert {(path.path.name, path.code) for path in left_out} == {
        ("broken.png", "W_UNREADABLE"),
        ("loop", "W_LINK_LOOP"),
        ("pipe.png", "W_NOT_IMAGE"),
    }


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    folders = [tmp_path / "in" / f"{i:02}" for i in range(12)]
    for folder in folders:
        touch(folder, "a.png")
        for other in folders:
            if other != folder:
                (folder / f"to-{other.name}").symlink_to(other)
    for given in ("in", "in/**/*.png", "in/*"):
        items, left_out = collect([tmp_path / given], tmp_path / "out")
        assert {os.path.realpath(item.path) for item in items} == {str(folder / "a.png") for folder in folders}
        assert len(items) == 12
        assert {one.code for one in left_out} <= {"W_LINK_LOOP"}


def test_the_output_folder_is_not_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.png", "textray-out/a.mask.png")
    assert names(collect(["."], tmp_path / "textray-out")[0]) == ["a"]
    assert names(collect(["**/*.png"], tmp_path / "textray-out")[0]) == ["a"]
    with pytest.raises(OutputError, match="output folder is an input"):
        collect(["."], tmp_path)


def test_results_never_overwrite_an_input(tmp_path):
    touch(tmp_path, "a.png", "a.mask.png")
    with pytest.raises(OutputError, match="overwrite an input") as caught:
        collect([tmp_path / "a.png", tmp_path / "a.mask.png"], tmp_path)
    assert caught.value.code == "E_OUTPUT"
    items, _ = collect([tmp_path / "a.png"], tmp_path)
    assert names(items) == ["a"]


@pytest.mark.parametrize("given", ["missing.png", "empty", "none-*.png"])
def test_inputs_that_hold_nothing_are_usage_errors(tmp_path, given):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        collect([tmp_path / given], tmp_path / "out")
    with pytest.raises(UsageError, match="no input was given"):
        collect([tmp_path, ""], tmp_path / "out")  # "" would be the folder one stands in


@pytest.mark.parametrize(
    "name", ["a\nb.png", "-rf.png", "é" * 126 + ".png", "a\x1b[31m.png", ".png", "a\udcff.png", "a?.png"]
)
def test_odd_names_become_safe_ones_that_differ_and_others_stay(name):
    assert [stem(other) for other in ("CHEST.DCM", "1.2.840.1", "Ünïcode 🫁.jpeg")] == [
        "CHEST",
        "1.2.840.1",
        "Ünïcode 🫁",
    ]
    safe = stem(name)
    assert safe.isprintable()
    assert not safe.startswith("-")
    assert len(safe.encode()) + len(".overlay.png") <= 255
    assert safe != stem(name.replace(".png", "_.png"))

"""The pages: commands that exist, Python that runs, links that lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from PIL import Image

import textray
from textray import registry
from textray.cli import app
from textray.inference import bundle

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(page for folder in ("*", "docs/**/*", "src/textray/weights/**/*") for page in ROOT.glob(f"{folder}.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
DEMO = "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/textray demo"
TESTS = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    """Contents of the page's fenced blocks of these languages."""
    return [code for language, code in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def lines(code):
    """Lines of a shell block, continued ones joined."""
    return [line.strip() for line in code.replace("\\\n", " ").splitlines() if line.strip()]


def commands(page):
    """Arguments of every `textray` command in blocks, and of those named in the text."""
    shown = [line.removeprefix("$ ") for code in blocks(page, "bash", "console") for line in lines(code)]
    parts = [part.strip() for line in shown for part in line.split(" && ")]
    run = [part for part in parts if re.match(r"(\S*/)?textray( |$)", part)]
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    named = [code.replace("\n", " ") for code in re.findall(r"`(textray [^`]+)`", text)]
    return [[shlex.split(words, comments=True)[1:] for words in found] for found in (run, named)]


def headings(page):
    """Anchors of a page's headings, as code hosts make them."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title)).strip().lower().replace(" ", "-") for title in found}


def test_the_readme_holds_the_two_commands_and_ci_runs_the_second():
    readme = [line for code in blocks(ROOT / "README.md", "bash") for line in lines(code)]
    assert readme[:2] == [DEMO, TESTS]
    assert TESTS in (ROOT / ".ci" / "run").read_text().splitlines()
    assert TESTS in (ROOT / "CONTRIBUTING.md").read_text().splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="a bash script")
@pytest.mark.parametrize("broken", ["python3", "pip", "pytest", "pytest -m slow", "ruff"])
def test_ci_fails_where_a_step_fails(broken, tmp_path):
    """The script runs in an empty folder with commands that only note their arguments, one of which fails."""
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    tools, inside = tmp_path / "tools", tmp_path / ".venv" / "bin"
    for name, folder in {"python3": tools, "pip": inside, "pytest": inside, "ruff": inside, "mypy": inside}.items():
        folder.mkdir(parents=True, exist_ok=True)
        note = f"echo \"{name} $*\" >> '{tmp_path}/called'"
        (folder / name).write_text(f'#!/bin/sh\n{note}\ncase "{name} $*" in "{broken}"*) exit 1;; esac\n')
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(script)], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    called = (tmp_path / "called").read_text().splitlines()
    assert [line for line in called if line.startswith(broken)] == called[-1:]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name} links to {target}"
        assert there.is_relative_to(ROOT), f"{name} links out of the repository: {target}"
        if anchor:
            assert anchor in headings(there), f"{name} links to {target}"


@pytest.mark.parametrize("row", [*registry.MODELS.values(), *registry.DATASETS.values()], ids=lambda row: row.name)
def test_every_registry_row_has_its_card_and_the_index_names_it(row):
    card = ROOT / row.card
    assert f"`{row.name}`" in card.read_text(encoding="utf-8")
    assert f"({Path(row.card).relative_to('docs').as_posix()})" in (ROOT / "docs" / "index.md").read_text()


def test_the_page_of_layers_names_those_of_the_contract():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (held,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    (named,) = [block for block in blocks(ROOT / "docs" / "flow.md", "text") if block.lstrip().startswith("cli →")]
    assert [layer.split() for layer in named.split("→")] == [layer.replace("textray.", "").split() for layer in held]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("CHANGELOG", "src/"))])
def test_every_name_of_the_code_exists(name):
    """``textray.module.name`` in backticks or in a command leads to a module, or to what it defines."""
    for dotted in sorted(set(re.findall(r"\btextray(?:\.\w+)+", (ROOT / name).read_text(encoding="utf-8")))):
        parts = dotted.split(".")
        place = ROOT / "src" / "textray"
        while parts[1:] and ((place / parts[1]).is_dir() or (place / f"{parts[1]}.py").is_file()):
            place = place / parts.pop(1)
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        assert not parts[1:] or re.search(rf"\b{parts[1]}\b", file.read_text(encoding="utf-8")), dotted


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def resolve(words):
    """Command of the application that these words call, and its arguments."""
    command, words = typer.main.get_command(app), list(words)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"no command {name!r}"
        command = command.commands[name]
    return command, words


WITH_COMMANDS = [name for name, page in zip(NAMES, PAGES, strict=True) if any(commands(page))]


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_exist_with_their_options(name, parse):
    shown, named = commands(ROOT / name)
    for words in [*shown, *named]:
        command, rest = resolve(words)
        if command.name == "train":
            if rest not in ([], ["--help"], ["--config", "..."]):  # named in passing
                parse(*(word for word in rest if word not in ("...", "--print_config")))
            continue
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in options]
        assert not unknown, f"textray {shlex.join(words)}"
        if words in shown and not hasattr(command, "commands") and "--help" not in rest:
            with command.make_context(command.name, rest):  # parses, and does not run
                pass


LOOP = "torch"
"""Word in the blocks of Python that need the extra `train`."""


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("README.md", False),
        ("docs/how-to/python.md", False),
        pytest.param("docs/how-to/python.md", True, marks=pytest.mark.slow),
    ],
)
def test_python_runs(name, loop, tiny_bundle, film, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "WEIGHTS_FOLDER", tiny_bundle.parent)
    monkeypatch.setattr(bundle, "DEFAULT_WEIGHTS", tiny_bundle.name)
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "chest.dcm")
    names = {}
    codes = [code for code in blocks(ROOT / name, "python") if loop or LOOP not in code]
    assert codes
    for code in codes:
        exec(compile(code, name, "exec"), names)
    assert (tmp_path / "out" / "chest.mask.png").is_file()
    assert name != "README.md" or [len(lines(code)) <= 10 for code in codes] == [True]


def test_the_picture_is_drawn_by_its_script(tiny_bundle, tmp_path):
    out = tmp_path / "picture.png"
    words = [sys.executable, str(ROOT / "docs" / "make_picture.py"), "--model", str(tiny_bundle), "--out", str(out)]
    subprocess.run(words, check=True, timeout=120)
    with Image.open(out) as picture:
        assert picture.size == (4 * 320 + 3 * 8, 350)


MACHINES = r"/work/|/home/|/root/|/tmp/|\.library|site-packages"
UNFINISHED = r"\b(TODO|FIXME|TBD)\b"
BOASTS = r"world-class|state-of-the-art|\b(simply|easily)\b|seamless"


@pytest.mark.parametrize("name", [*NAMES, ".ci/run", "CITATION.cff", "pyproject.toml"])
def test_no_page_names_a_machine_or_boasts(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.search(f"{MACHINES}|{UNFINISHED}|{BOASTS}", text, re.IGNORECASE) is None


def test_one_version_everywhere():
    version = PROJECT["project"]["version"]
    assert version == textray.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert version in (ROOT / "CHANGELOG.md").read_text()


def test_packages_are_in_third_party_and_the_base_and_the_demo_bring_no_torch():
    base, extras = PROJECT["project"]["dependencies"], PROJECT["project"]["optional-dependencies"]
    rows = [*base, *(row for extra in extras.values() for row in extra)]
    packages = {re.match(r"[\w-]+", row)[0] for row in rows} - {"textray"}
    page = (ROOT / "THIRD_PARTY.md").read_text()
    assert {name for name in packages if not re.search(rf"\b{re.escape(name)}\b", page)} == set()
    light = [*base, *extras["demo"]]
    assert not [row for row in light if re.match(r"torch|lightning|timm|transformers|monai", row)]

"""Imports run one way, and no `--help` pays for a library it does not need."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ovtool"
# From the top down: a file may import rooms of the rows below its own, and of its own room; rooms of one
# row do not import each other.
ROWS = (
    ("cli",),
    ("stages",),
    ("cams", "measures"),
    ("trainers", "segmenters"),
    ("batches", "inputs", "outputs", "proposers"),
    ("training",),
    ("models",),
    ("datasets",),
    ("runtime",),
    ("methods",),
)
FOR_ALL = {"settings", "formats"}
ALLOWED = {
    **{
        room: {room, *FOR_ALL, *(below for lower in ROWS[row + 1 :] for below in lower)}
        for row, rooms in enumerate(ROWS)
        for room in rooms
    },
    "settings": {"settings", "formats"},
    "formats": {"formats"},
    "weights": set(),
}
HEAVY = ("torch", "numpy", "spacy", "PIL", "open_clip", "skimage", "pycocotools", "transformers")


def imported_folders(source: str, package: tuple[str, ...]) -> set[str]:
    """The folders of ovtool that a module imports, wherever in it the import stands."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            modules += [f"{name}.{alias.name}" for alias in node.names]
    parts = [module.split(".") for module in modules if module.split(".")[0] == "ovtool"]
    return {part[1] for part in parts if len(part) > 1 and (PACKAGE / part[1]).is_dir()}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_runs_back(path):
    folder = path.relative_to(PACKAGE).parts[0]
    assert folder in ALLOWED, f"the room {folder} is unknown; give it a row"
    package = path.relative_to(ROOT).parts[:-1]
    found = imported_folders(path.read_text(encoding="utf-8"), package)
    assert found <= ALLOWED[folder], f"{path} may not import {sorted(found - ALLOWED[folder])}"


def test_the_reader_of_imports_sees_every_form():
    assert imported_folders("import ovtool.cli.app", ("ovtool", "methods")) == {"cli"}
    assert imported_folders("from ovtool import stages", ("ovtool", "methods")) == {"stages"}
    assert imported_folders("from ..cli import app", ("ovtool", "methods")) == {"cli"}
    assert imported_folders("from . import rle", ("ovtool", "formats")) == {"formats"}
    assert imported_folders("def f():\n  from ovtool.models import clip", ()) == {"models"}
    assert imported_folders("import torch\nfrom ovtool import errors", ()) == set()


def test_nothing_imports_click():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("scripts/*/*.py")]
    sources = {path: path.read_text(encoding="utf-8") for path in files}
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source if "click" in source else "")):  # parsing is slow
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "click" for name in names), path


def command_lines() -> list[list[str]]:
    """The words that lead to every command, groups and the root among them."""
    from ovtool.cli.app import COMMANDS

    def walk(rows, words):
        yield words
        for name, target, _ in rows:
            yield from [[*words, name]] if isinstance(target, str) else walk(target, [*words, name])

    return list(walk(COMMANDS, []))


@pytest.mark.parametrize("words", command_lines(), ids=lambda words: " ".join(words) or "root")
def test_help_imports_nothing_heavy(words):
    program = (
        "import sys; from ovtool.cli.errors import run; status = run(sys.argv[1:]);"
        f"print('HEAVY', [m for m in {HEAVY} if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ovtool")
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_import_ovtool_imports_nothing():
    program = "import sys; before = set(sys.modules); import ovtool; print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['ovtool']"


def test_version_is_that_of_pyproject():
    from importlib.metadata import PackageNotFoundError, version

    import ovtool

    try:
        version("ovtool")
    except PackageNotFoundError:
        pytest.skip("ovtool is not installed here")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ovtool.__version__ == project["version"]

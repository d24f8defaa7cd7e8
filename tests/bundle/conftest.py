"""Art made up for the training split."""

from functools import lru_cache

import pytest
from PIL import Image, ImageDraw

from ovtool.datasets import art, collage_files
from ovtool.datasets.nouns import table


@pytest.fixture
def train_art(tmp_path, monkeypatch):
    """Made-up art where scripts/bundle/fetch_art puts the real: an ellipse for every code point, coloured by
    its number, in one style."""
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    fresh = lru_cache(collage_files.drawings.__wrapped__)  # what it reads lives as long as the test
    monkeypatch.setattr(collage_files, "drawings", fresh)
    folder = art.train_folder() / "noto"
    folder.mkdir(parents=True)
    for noun in table():
        for point in noun.code_points:
            value = int(point, 16)
            drawing = Image.new("RGBA", (40, 24 + value % 16))
            colour = (value * 37 % 256, value * 101 % 256, value * 59 % 256, 255)
            ImageDraw.Draw(drawing).ellipse((0, 0, 39, drawing.height - 1), fill=colour)
            drawing.save(folder / f"{point}.png", compress_level=1)
    return folder

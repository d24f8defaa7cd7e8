"""Style augmentation: other drawings of the same thing, from a generator alone."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from restyle import restyle


@pytest.fixture
def drawing():
    made = Image.new("RGBA", (60, 48))
    ImageDraw.Draw(made).ellipse((4, 4, 55, 43), fill=(200, 60, 40, 255))
    ImageDraw.Draw(made).rectangle((20, 15, 30, 25), fill=(40, 60, 200, 255))
    return made


def styles(drawing, count, seed=0):
    rng = np.random.default_rng(seed)
    return [restyle(rng, drawing.copy()) for _ in range(count)]


def test_a_function_of_its_generator(drawing):
    first, again, other = (
        [style.tobytes() for style in styles(drawing, 12, seed)] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 8


def test_about_one_in_ten_is_left_as_it_is(drawing):
    left = [style.tobytes() == drawing.tobytes() for style in styles(drawing, 1500)]
    assert 0.07 < np.mean(left) < 0.16


def test_what_comes_out_is_a_drawing_still(drawing):
    """RGBA, about as large, its ink neither gone nor all over the place."""
    ink = (np.asarray(drawing)[..., 3] > 127).sum()
    for style in styles(drawing, 200):
        assert style.mode == "RGBA"
        assert 0.6 < style.width / drawing.width < 1.6 and 0.6 < style.height / drawing.height < 1.6
        assert 0.5 < (np.asarray(style)[..., 3] > 127).sum() / ink < 1.8


def test_styles_change_colour_shape_and_edges(drawing):
    """Some turn grey, some take another hue, some another outline, some few tones."""
    red = np.array([200, 60, 40])
    grey = hue = outline = tones = 0
    for style in styles(drawing, 400):
        pixels = np.asarray(style).astype(int)
        ink = pixels[pixels[..., 3] > 250][:, :3]
        middle = np.median(ink, 0)
        grey += np.ptp(ink, 1).max() <= 2
        hue += np.argmax(middle) != np.argmax(red) and np.ptp(middle) > 30
        outline += style.size != drawing.size
        tones += len(np.unique(ink)) <= 6
    assert 35 < grey < 75  # 0.8 x 0.1 in colour, 0.06 as line art
    assert hue > 10
    assert 200 < outline < 300  # 0.9 x 0.7 are warped, most to another size
    assert tones > 40


@pytest.mark.parametrize("size", [(3, 60), (60, 3), (1, 1)])
def test_drawings_of_any_shape(size):
    made = Image.new("RGBA", size, (10, 200, 30, 255))
    assert all(min(style.size) >= 1 for style in styles(made, 60))


def test_the_drawing_that_is_given_stays_as_it_was(drawing):
    """The bank that it comes from is used for millions of pictures."""
    before = drawing.tobytes()
    rng = np.random.default_rng(3)
    for _ in range(3000):
        restyle(rng, drawing)
        assert drawing.tobytes() == before

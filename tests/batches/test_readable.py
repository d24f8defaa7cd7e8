"""The check of all images before a training: what fails, why, and what is said of it."""

import io

import numpy as np
import pytest
from PIL import Image

from ovtool.batches.readable import LENIENT, Check, Expected
from ovtool.errors import InputError
from ovtool.formats.images import ImageItem


def jpeg(**options):
    """An image of 120 x 90 pixels of noise."""
    rgb = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture
def expected(tmp_path):
    """Writes files by name, and names them with a size each, (90, 120) where none is given."""

    def made(contents, sizes=None):
        images = []
        for name, content in contents.items():
            if content is not None:
                (tmp_path / name).write_bytes(content)
            size = (sizes or {}).get(name, (90, 120))
            images.append(Expected(ImageItem(tmp_path / name, name), size))
        return images

    return made


def test_what_is_whole_is_left_in_and_nothing_is_said(expected, caplog):
    contents = {"a.jpg": jpeg(), "b.jpg": jpeg(progressive=True)}
    assert LENIENT.failures(expected(contents), "x.json") == ()
    assert LENIENT.failures(expected(contents, {"a.jpg": None}), "x.json") == ()
    assert LENIENT.failures([], "x.json") == () and caplog.messages == []


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_too_soon_is_seen(expected, share, progressive):
    data = jpeg(progressive=progressive)
    contents = {"a.jpg": jpeg(), "b.jpg": data[: int(share * len(data))]}
    (failure,) = LENIENT.failures(expected(contents), "x.json")
    assert failure["file_name"] == "b.jpg"
    assert failure["reason"].startswith("b.jpg is truncated or damaged (image file is truncated")


@pytest.mark.parametrize("workers", [0, 1])
def test_all_that_fail_are_counted_in_one_warning(expected, caplog, workers, tmp_path):
    contents = {
        "a.jpg": jpeg(), "b.jpg": jpeg()[:900], "c.jpg": jpeg(), "d.png": b"", "e.png": None,
        "f.jpg": jpeg(),
    }  # fmt: skip
    images = expected(contents, {"c.jpg": (20, 21), "f.jpg": None})
    failures = Check(workers=workers).failures(images, "x.json", "masks")
    assert [failure["file_name"] for failure in failures] == ["b.jpg", "c.jpg", "d.png", "e.png"]
    size = "c.jpg has 120 x 90 pixels, and its masks 21 x 20"
    assert failures[1]["reason"] == f"{size}; give the images that they were made for"
    (message,) = caplog.messages
    assert message.startswith("left out 4 of the 6 images of x.json: b.jpg is truncated or damaged")
    assert message.endswith(f"; {size}; d.png is empty and 1 more")
    assert str(tmp_path) not in str(failures)


def test_strict_stops_at_the_first(expected, caplog):
    images = expected({"a.jpg": jpeg(), "b.jpg": jpeg()[:900], "c.jpg": b""})
    with pytest.raises(InputError, match=r"^b\.jpg is truncated or damaged \(.*; replace or"):
        Check(strict=True).failures(images, "x.json")
    known = [{"file_name": "z.png", "reason": "z.png is bad"}]
    with pytest.raises(InputError, match="z.png is bad"):
        Check(strict=True).failures([], "x.json", known=known)
    assert caplog.messages == []


def test_none_that_can_be_read_is_an_error(expected):
    with pytest.raises(InputError, match="none of the 2 images of x.json can be trained on; the "
                       "first: a.jpg is empty"):  # fmt: skip
        LENIENT.failures(expected({"a.jpg": b"", "b.jpg": b""}), "x.json")


def test_only_the_first_process_speaks(expected, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert len(LENIENT.failures(expected({"a.jpg": jpeg(), "b.jpg": b""}), "x.json")) == 1
    assert caplog.messages == []

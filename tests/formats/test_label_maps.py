"""Label maps in 8 and 16 bits, and the names beside them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovtool.errors import InputError
from ovtool.formats import label_maps

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("num_classes", "mode", "void"),
    [(1, "P", 255), (21, "P", 255), (254, "P", 255), (255, "I;16", 65535), (847, "I;16", 65535),
     (65535, "I;16", 65535)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_round_trip(tmp_path: Path, num_classes: int, mode: str, void: int, dtype: type) -> None:
    labels = RNG.integers(-1, num_classes, (30, 20)).astype(dtype)
    labels[0, :2] = -1, num_classes - 1
    label_maps.write(tmp_path / "a.png", labels, num_classes)
    found = label_maps.read(tmp_path / "a.png")
    assert found.dtype == np.int32 and (found == labels).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == mode and np.array(image)[0, 0] == void
    first = (tmp_path / "a.png").read_bytes()
    label_maps.write(tmp_path / "a.png", labels, num_classes)
    assert (tmp_path / "a.png").read_bytes() == first


def test_the_palette_is_that_of_voc(tmp_path: Path) -> None:
    def slow(index: int) -> tuple[int, int, int]:
        red = green = blue = 0
        for bit in range(8):
            red |= (index & 1) << 7 - bit
            green |= (index >> 1 & 1) << 7 - bit
            blue |= (index >> 2 & 1) << 7 - bit
            index >>= 3
        return red, green, blue

    assert [tuple(colour) for colour in label_maps.palette(300).tolist()] == list(
        map(slow, range(300))
    )
    assert label_maps.palette(4).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    label_maps.write(tmp_path / "a.png", np.array([[15, -1]]), 21)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array(image.convert("RGB")).tolist() == [[[192, 128, 128], [224, 224, 192]]]


def test_maps_of_others(tmp_path: Path) -> None:
    labels = RNG.integers(0, 16, (5, 7)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    assert (label_maps.read(tmp_path / "grey.png") == labels).all()
    image = Image.fromarray(labels)
    image.putpalette(bytes(range(48)))
    image.save(tmp_path / "small.png", bits=4)
    assert (label_maps.read(tmp_path / "small.png") == labels).all()
    Image.fromarray(labels > 7).save(tmp_path / "bits.png")
    assert (label_maps.read(tmp_path / "bits.png") == (labels > 7)).all()


def test_grey_of_few_bits_is_not_stretched(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    for depth, row, labels in ((4, b"\0\x0f\x3a", [0, 15, 3, 10]), (2, b"\0\x1b", [0, 1, 2, 3])):
        header = struct.pack(">IIBBBBB", 4, 1, depth, 0, 0, 0, 0)
        data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        assert label_maps.read(tmp_path / "a.png").tolist() == [labels]


def test_wrong_labels_are_not_written(tmp_path: Path) -> None:
    for labels in (np.array([[3]]), np.array([[-2]]), np.zeros((1, 1, 1), int)):
        with pytest.raises(ValueError, match="labels"):
            label_maps.write(tmp_path / "a.png", labels, 3)
    with pytest.raises(InputError, match="at most 65,535 classes"):
        label_maps.write(tmp_path / "a.png", np.array([[3]]), 65_536)
    assert list(tmp_path.iterdir()) == []


def test_wrong_files(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="an image in colours"):
        label_maps.read(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is JPEG, not PNG"):
        label_maps.read(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="no such file"):
        label_maps.read(tmp_path / "none.png")
    label_maps.write(tmp_path / "b.png", RNG.integers(0, 200, (64, 64)), 200)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-900])
    with pytest.raises(InputError, match=r"b\.png is truncated"):
        label_maps.read(tmp_path / "b.png")


def test_classes(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    label_maps.write_classes(path, ["tea pot", "café"])
    assert path.read_bytes() == "tea pot\ncafé\n".encode()
    assert label_maps.read_classes(path) == ["tea pot", "café"]
    path.write_bytes("\ufeffa\r\nb\r\n\r\n".encode())
    assert label_maps.read_classes(path) == ["a", "b"]
    path.write_text("# the labels of 2024\na\n#b\nb\n")
    assert label_maps.read_classes(path) == ["a", "b"]
    signs = ["#1", "\\#2", "c#", "# d"]
    label_maps.write_classes(path, signs)
    assert path.read_text().splitlines() == ["\\#1", "\\\\#2", "c#", "\\# d"]
    assert label_maps.read_classes(path) == signs
    for text, message in [
        ("", "names no class"),
        ("# a\n", "names no class"),
        ("a\n\nb\n", "line 2 is empty"),
        ("a\nb\na\n", "'a' is on line 1 and again on line 3"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            label_maps.read_classes(path)
    path.write_bytes(b"\xe9t\xe9\n")
    with pytest.raises(InputError, match="not UTF-8 text at byte"):
        label_maps.read_classes(path)
    with pytest.raises(InputError, match="no such file"):
        label_maps.read_classes(tmp_path / "none.txt")
    for name in ("", "a\nb"):
        with pytest.raises(InputError, match="not a name of one line"):
            label_maps.write_classes(path, [name])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_grey_map_that_was_saved_in_colour(mode, tmp_path):
    labels = np.array([[0, 1, 2], [255, 7, 0]], np.uint8)
    Image.fromarray(labels).convert(mode).save(tmp_path / "a.png")
    expected = np.where(labels == 255, -1, labels.astype(int))
    assert np.array_equal(label_maps.read(tmp_path / "a.png"), expected)
    array = np.array(Image.fromarray(labels).convert(mode))
    array[0, 0, -1] = 9  # another colour, or an opacity
    Image.fromarray(array).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="is an image in colours, and a label map"):
        label_maps.read(tmp_path / "b.png")

"""Broken images among good ones: all good ones come out, and all bad ones are listed."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from ovtool.formats import cams, coco

GOOD = ("good.png", "zgood.jpg")


def encoded(suffix, **options):
    """The bytes of a small image in a format."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, suffix, **options)
    return buffer.getvalue()


def png(*chunks):
    """A PNG of chunks, each with its right sum."""
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return content


def header(width, height):
    """The first chunk of a PNG."""
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def half(data):
    """The first half."""
    return data[: len(data) // 2]


def broken():
    """Twenty kinds of broken images, name to content."""
    avif = {}
    if features.check("avif"):
        data = encoded("AVIF")
        spoiled = bytearray(data)
        spoiled[data.index(b"mdat") + 8 :] = bytes(len(data) - data.index(b"mdat") - 8)
        avif = {"cut.avif": half(data), "spoiled.avif": bytes(spoiled)}
    data = encoded("PNG")
    return avif | {
        "empty.jpg": b"",
        "text.jpg": b"no image at all\n",
        "zeros.png": bytes(300),
        "cut.jpg": half(encoded("JPEG")),
        "head.jpg": encoded("JPEG")[:20],
        "cut.png": half(data),
        "signature.png": data[:8],
        "sum.png": data.replace(b"IHDR", b"IHDX"),
        "nopixels.png": png(header(64, 64), (b"IEND", b"")),
        "squeezed.png": png(header(64, 64), (b"IDAT", b"\xff" * 40), (b"IEND", b"")),
        "none.png": png(header(0, 0), (b"IEND", b"")),
        "bomb.png": png(header(1 << 20, 1 << 20), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")),
        "page.png": b"<html>404</html>",
        "cut.webp": half(encoded("WEBP")),
        "cut.gif": half(encoded("GIF"))[:60],
        "cut.bmp": half(encoded("BMP")),
        "cut.tif": encoded("TIFF")[:40],
        "spoiled.tif": encoded("TIFF", compression="tiff_lzw").replace(b"\x01\x01", b"\x09\x09"),
        "float.tif": floating(),
        "cut.ppm": half(encoded("PPM")),
        "large.pgm": b"P5 99999999999 99999999999 255\n",
    }  # fmt: skip


def floating():
    """A TIFF of floating-point numbers, which have no known range."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.fixture
def batch(desk):
    """A folder of broken images and two good ones; the names of the broken ones."""
    folder = desk / "batch"
    folder.mkdir()
    for name, data in broken().items():
        (folder / name).write_bytes(data)
    for name in GOOD:
        kind = "PNG" if name.endswith("png") else "JPEG"
        (folder / name).write_bytes(encoded(kind))
    names = sorted(broken())
    assert len(names) >= 20
    listed = [
        {"id": k, "file_name": n, "width": 64, "height": 64} for k, n in enumerate((*names, *GOOD))
    ]
    said = [{"id": k + 1, "image_id": k, "caption": "a cow"} for k in range(len(listed))]
    (desk / "captions.json").write_text(json.dumps({"images": listed, "annotations": said}))
    (desk / "labels.txt").write_text("".join(f"{image['file_name']} cow\n" for image in listed))
    return names


@pytest.mark.parametrize(
    "line",
    [
        "propose batch --proposer regions -o o.json",
        "segment batch --classes cow --method patch -o o.json --label-maps maps",
        "mine-pairs --captions captions.json --images batch --proposer regions -o o.json",
        "cam --labels labels.txt --images batch --method gradcam -o o.safetensors",
    ],
    ids=lambda line: line.split()[0],
)
def test_good_images_come_out_and_bad_ones_are_listed(desk, batch, does, line):
    status, said = does(line)
    assert status == 3
    if line.startswith("cam"):
        made = cams.read(desk / "o.safetensors")
        images, failures = made.images, made.failures
    else:
        made = coco.read(desk / "o.json")
        images, failures = made.images, made.info["ovtool"]["failures"]
    assert sorted(image.file_name for image in images) == list(GOOD)
    assert sorted(failure["file_name"] for failure in failures) == batch
    assert all(failure["reason"].count("\n") == 0 for failure in failures)
    assert f"{len(batch)} failed" in said or said.count("failed: ") >= 20

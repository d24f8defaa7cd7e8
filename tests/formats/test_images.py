"""Pictures of every kind become the RGB that a viewer shows; broken ones are named."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovtool.errors import InputError
from ovtool.formats import coco, image_search, images, label_maps, plots

RNG = np.random.default_rng(0)
RGB = np.kron(RNG.integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 32 x 48


def test_rgb_and_grey(tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", RGB)
    found = images.read_rgb(tmp_path / "a.png")
    assert found.dtype == np.uint8 and found.flags.writeable and (found == RGB).all()
    images.write_png(tmp_path / "b.png", RGB[..., 0])
    assert (images.read_rgb(tmp_path / "b.png") == RGB[..., :1]).all()
    Image.fromarray(RGB[..., 0] > 100).save(tmp_path / "c.png")
    assert (images.read_rgb(tmp_path / "c.png") == 255 * (RGB[..., :1] > 100)).all()


def test_a_search_of_folders_leaves_out_what_was_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "b.jpg")
    images.write_png(tmp_path / "a.overlay.png", RGB)
    (tmp_path / "maps").mkdir()
    label_maps.write(tmp_path / "maps" / "a.png", np.zeros((3, 4), int), 2)
    label_maps.write(tmp_path / "maps" / "b.png", np.zeros((3, 4), int), 300)
    plots.losses(tmp_path / "a.loss.png", [{"step": 1, "loss": 1.0}], "a loss")
    images.save_png(tmp_path / "crop.png", Image.fromarray(RGB), is_drawn=False)
    found = image_search.find_images([str(tmp_path)])
    assert [item.name for item in found] == ["a.png", "b.jpg", "crop.png"]
    assert "left out: 4 drawn by ovtool" in caplog.text
    (item,) = image_search.find_images([str(tmp_path / "a.overlay.png")])  # asked for by its name
    assert "1 of the images given were drawn by ovtool (the first is" in caplog.text
    assert (images.read_rgb(item.path) == RGB).all()


def test_written_pngs_have_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        images.write_png(tmp_path / name, RGB)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


TURNED = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: RGB.transpose(1, 0, 2)[:, ::-1],
    7: RGB[::-1, ::-1].transpose(1, 0, 2),
    8: RGB.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 95}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, exif=exif, **(options if suffix not in ("png", "tif") else {}))
    found = images.read_rgb(path)
    assert images.read_size(path) == found.shape[:2] == TURNED[orientation].shape[:2]
    assert np.abs(found.astype(int) - TURNED[orientation]).mean() < 8


def test_a_broken_exif_block_is_no_defect(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert images.read_rgb(tmp_path / "a.jpg").shape == RGB.shape
    assert images.read_size(tmp_path / "a.jpg") == (32, 48)
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(RGB).save(tmp_path / "b.jpg", exif=exif)
    assert images.read_rgb(tmp_path / "b.jpg").shape == RGB.shape


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = images.read_rgb(tmp_path / f"a.{suffix}")
    assert (found == (values >> 8)[..., None]).all()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + png_chunk(b"IEND", b"")


def test_16_bit_colour_and_alpha(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(7, 5, 16, 2, rows))
    assert (images.read_rgb(tmp_path / "a.png") == values >> 8).all()
    grey = RNG.integers(0, 65536, (5, 7, 2)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    (tmp_path / "b.png").write_bytes(png(7, 5, 16, 4, rows))
    colour, alpha = (grey[..., 0] >> 8).astype(float), (grey[..., 1] >> 8) / 255
    expected = colour * alpha + 255 * (1 - alpha)
    assert np.abs(images.read_rgb(tmp_path / "b.png") - expected[..., None]).max() <= 1


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, RGB.shape[:2]).astype(np.uint8)
    share = alpha[..., None] / 255
    for name, array, mode in [
        ("a.png", np.dstack([RGB, alpha]), "RGBA"),
        ("b.png", np.dstack([RGB[..., 0], alpha]), "LA"),
        ("c.webp", np.dstack([RGB, alpha]), "RGBA"),
    ]:
        options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
        Image.fromarray(array, mode).save(tmp_path / name, **options)
        colours = RGB if mode == "RGBA" else RGB[..., :1]
        expected = colours * share + 255 * (1 - share)
        assert np.abs(images.read_rgb(tmp_path / name) - expected).max() <= 1


def test_palettes(tmp_path: Path) -> None:
    indices = RNG.integers(0, 4, (9, 11)).astype(np.uint8)
    colours = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 90], [10, 20, 30]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "plain.png")
    assert (images.read_rgb(tmp_path / "plain.png") == colours[indices]).all()
    image.save(tmp_path / "one.png", transparency=2)
    image.save(tmp_path / "one.gif", transparency=2)
    white = colours.copy()
    white[2] = 255
    assert (images.read_rgb(tmp_path / "one.png") == white[indices]).all()
    assert (images.read_rgb(tmp_path / "one.gif") == white[indices]).all()
    image.save(tmp_path / "many.png", transparency=bytes([255, 0, 128, 255]))
    mixed = colours.copy()
    mixed[1] = 255
    mixed[2] = np.round(colours[2].astype(float) * 128 / 255 + 255 * 127 / 255)
    found = images.read_rgb(tmp_path / "many.png").astype(int)
    assert np.abs(found - mixed[indices]).max() <= 1


def test_a_transparent_colour_in_grey_and_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png", transparency=int(RGB[0, 0, 0]))
    grey = images.read_rgb(tmp_path / "a.png")
    assert (grey == np.where(RGB[..., :1] == RGB[0, 0, 0], 255, RGB[..., :1])).all()
    Image.fromarray(RGB).save(tmp_path / "b.png", transparency=tuple(map(int, RGB[0, 0])))
    colour = images.read_rgb(tmp_path / "b.png")
    assert (colour[0, 0] == 255).all() and (colour[-1, -1] == RGB[-1, -1]).all()


def cmyk_jpeg(inks: tuple[int, int, int, int], adobe: bool) -> bytes:
    """A JPEG of one colour of inks (255 is full), marked as Adobe's or not marked."""
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), inks).save(buffer, "JPEG", quality=100)  # marked, inverted
    data = buffer.getvalue()
    if adobe:
        return data
    buffer = io.BytesIO()
    inverted = tuple(255 - ink for ink in inks)  # Pillow inverts when it writes: so it is stored
    Image.new("CMYK", (16, 16), inverted).save(buffer, "JPEG", quality=100)
    data = buffer.getvalue()
    start = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    return data[:start] + data[start + 2 + length :]


@pytest.mark.parametrize("adobe", [True, False])
@pytest.mark.parametrize(
    ("inks", "rgb"),
    [((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)),
     ((255, 0, 0, 128), (0, 127, 127))],
)  # fmt: skip
def test_cmyk_jpegs(
    tmp_path: Path, adobe: bool, inks: tuple[int, int, int, int], rgb: tuple[int, int, int]
) -> None:
    data = cmyk_jpeg(inks, adobe)
    assert (b"Adobe" in data) == adobe
    (tmp_path / "a.jpg").write_bytes(data)
    found = images.read_rgb(tmp_path / "a.jpg").astype(int)
    assert np.abs(found - np.array(rgb)).max() <= 3


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_show_their_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    assert (images.read_rgb(path) == [255, 0, 0]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "jp2"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    good = tmp_path / f"good.{suffix}"
    Image.fromarray(noise).save(good)
    data = good.read_bytes()
    bad = tmp_path / f"bad.{suffix}"
    for share in (0.02, 0.3, 0.6, 0.9):
        bad.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=rf"bad\.{suffix}") as error:
            images.read_rgb(bad)
        assert "\n" not in str(error.value)


def test_damaged_pixels_are_named(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    data = bytearray(png(48, 32, 8, 2, rows))
    middle = data.index(b"IDAT") + 40
    data[middle : middle + 30] = bytes(30)
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.png is truncated or damaged"):
        images.read_rgb(tmp_path / "bad.png")


def test_bombs_are_refused(tmp_path: Path) -> None:
    # one row of it is enough: the header alone decides
    (tmp_path / "bomb.png").write_bytes(png(20_000, 20_000, 1, 0, bytes(2501)))
    for function in (images.read_rgb, images.read_size):
        with pytest.raises(InputError, match="more than 178,956,970 pixels"):
            function(tmp_path / "bomb.png")


def test_bombs_are_refused_whatever_pillow_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png(20_000, 20_000, 1, 0, bytes(2501)))
    with pytest.raises(InputError, match="more than 178,956,970 pixels"):
        images.read_rgb(tmp_path / "bomb.png")


def test_other_files(tmp_path: Path) -> None:
    for name, data, message in [
        ("a.jpg", b"", "is empty"),
        ("b.jpg", b"not a picture", "is not an image that can be read"),
        ("c.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not an image"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            images.read_rgb(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        images.read_rgb(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder"):
        images.read_rgb(tmp_path)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match="floating-point"):
        images.read_rgb(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(InputError, match="32-bit pixels"):
        images.read_rgb(tmp_path / "i.tif")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*inputs: object) -> list[str]:
    return [item.name for item in image_search.find_images([str(value) for value in inputs])]


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    names = ["b.JPG", "a/10.png", "a/2.webp", "a.jpg", "c/d/e.tiff"]
    touch(*(folder / name for name in names), folder / "x.txt", folder / ".h.jpg")
    touch(folder / ".cache" / "t.jpg", tmp_path / "one.heic")
    assert found(folder) == ["a.jpg", "a/10.png", "a/2.webp", "b.JPG", "c/d/e.tiff"]
    assert image_search.find_images([str(folder)])[1].path == folder / "a" / "10.png"
    assert found(folder / "b.JPG", tmp_path / "one.heic") == ["b.JPG", "one.heic"]
    assert found(folder / "b.JPG", folder) == [
        "b.JPG",
        "a.jpg",
        "a/10.png",
        "a/2.webp",
        "c/d/e.tiff",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/a.jpg\n\n{folder}/b.JPG"))
    assert found("-") == ["a.jpg", "b.JPG"]


def test_equal_names_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "p" / "a.jpg", tmp_path / "q" / "a.jpg", tmp_path / "q" / "r" / "b.jpg")
    assert found(tmp_path / "p", tmp_path / "q") == ["p/a.jpg", "q/a.jpg", "q/r/b.jpg"]
    monkeypatch.chdir(tmp_path / "q" / "r")
    assert found("../a.jpg", "../../p/a.jpg", "b.jpg") == ["q/a.jpg", "p/a.jpg", "q/r/b.jpg"]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    touch(tmp_path / "p" / "a.jpg", tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "more").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "p") == ["a.jpg", "more/b.jpg"]


def test_find_images_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file or folder: .*none"):
        found(tmp_path / "none")
    touch(tmp_path / "a.txt")
    with pytest.raises(InputError, match="no image in .*it holds no .jpg"):
        found(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    with pytest.raises(InputError, match="no image names on standard input"):
        found("-")
    for name in (b"back\\slash.jpg", b"bad\xff.jpg", b"line\nbreak.jpg"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.touch()
        with pytest.raises(InputError, match="rename it") as error:
            found(path)
        assert "\n" not in str(error.value)
        str(error.value).encode("utf-8")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_are_those_that_were_saved(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 95}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, exif=exif, **(options if suffix not in ("png", "tif") else {}))
    stored = images.read_rgb(path, exif="stored")
    assert stored.shape == RGB.shape and images.read_size(path, exif="stored") == RGB.shape[:2]
    assert np.abs(stored.astype(int) - RGB).mean() < 8
    assert images.count_turned([path, tmp_path / "none.jpg"]) == (orientation != 1)


def test_a_compressed_tiff_is_turned_and_turned_back(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.tif", exif=exif, compression="tiff_lzw")
    assert (images.read_rgb(tmp_path / "a.tif", exif="stored") == RGB).all()
    assert (images.read_rgb(tmp_path / "a.tif") == TURNED[6]).all()


NAMES = [
    "Screenshot 2026-01-02 at 3.04.05\u202fPM.png",
    "no\u00a0break.png",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "12:30:05.png",
    " two  blanks .png",
    "a:b.png",
    "\u05d0\u05d1 \u200f\u0627.png",
    "cafe\u0301.png",
    "#1, [draft]; 50%|x'\".png",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_is_found_is_written_and_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "photos" / "a:1"
    touch(folder / name, folder / "plain.png")
    items = image_search.find_images([str(tmp_path / "photos")])
    assert {item.name for item in items} == {f"a:1/{name}", "a:1/plain.png"}
    listed = [coco.Image(number, item.name, 8, 6) for number, item in enumerate(items, start=1)]
    coco.write(coco.Dataset({}, listed, [], []), tmp_path / "x.json")
    assert [one.file_name for one in coco.read(tmp_path / "x.json").images] == [
        item.name for item in items
    ]


@pytest.mark.parametrize("name", ["a\\b.png", "a\x07.png", "a\x85.png", "a\udcff.png", "C:/a.png"])
def test_a_name_that_is_not_found_is_not_written_either(tmp_path: Path, name: str) -> None:
    if name != "C:/a.png":  # a folder of that name would be found by its files' names alone
        touch(tmp_path / "photos" / name)
        with pytest.raises(InputError, match="rename it"):
            found(tmp_path / "photos")
    listed = [coco.Image(1, name, 8, 6)]
    with pytest.raises(InputError, match="rename the file|write it with forward slashes"):
        coco.write(coco.Dataset({}, listed, [], []), tmp_path / "x.json")


def test_jpegs_of_all_suffixes_are_found(tmp_path: Path) -> None:
    names = ["a.jfif", "b.jpe", "c.JFIF", "d.JPE", "e.Jpeg"]
    touch(*(tmp_path / name for name in names))
    assert found(tmp_path) == names


def test_what_is_left_out_is_counted_by_suffix_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["p/a.jpg", "p/1.heic", "p/2.HEIC", "q/b.jpg", "q/3.heic", "q/film.mp4", "q/README"]
    touch(*(tmp_path / name for name in names))
    assert found(tmp_path / "p", tmp_path / "q") == ["a.jpg", "b.jpg"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "left out: 3 .heic, 1 without a suffix, 1 .mp4 "
        "(HEIC is read with the extra heic: pip install 'ovtool[heic]')"
    )
    assert record.levelname == "WARNING"
    caplog.clear()
    touch(tmp_path / "r" / "a.jpg", tmp_path / "r" / "a.txt")
    assert found(tmp_path / "r") == ["a.jpg"]
    assert not [one for one in caplog.records if one.levelname == "WARNING"]
    touch(tmp_path / "s" / "a.heic")
    with pytest.raises(InputError, match="it has 1 .heic"):
        found(tmp_path / "s")


def test_heic_without_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(InputError, match=r"pip install 'ovtool\[heic\]'"):
        images.read_rgb(tmp_path / "a.heic")
    Image.fromarray(RGB).save(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").rename(tmp_path / "b.heic")  # a JPEG under the name of a HEIC
    assert images.read_rgb(tmp_path / "b.heic").shape == RGB.shape


def test_heic_with_the_extra_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow_heif registers a format as it does, whose pixels are a stored PPM's."""
    module = tmp_path / "modules" / "pillow_heif.py"
    module.parent.mkdir()
    module.write_text(
        "from PIL import Image, PpmImagePlugin\n"
        "class Heif(PpmImagePlugin.PpmImageFile):\n"
        "    format = 'HEIF'\n"
        "    def _open(self):\n"
        "        self.fp.seek(4)\n"
        "        self.custom_mimetype = None\n"
        "        import io\n"
        "        self.fp = io.BytesIO(self.fp.read())\n"
        "        super()._open()\n"
        "def register_heif_opener():\n"
        "    Image.register_open('HEIF', Heif, lambda prefix: prefix[:4] == b'heic')\n"
    )
    monkeypatch.syspath_prepend(module.parent)
    images._register_heic.cache_clear()
    try:
        (tmp_path / "photos").mkdir()
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, "PPM")
        (tmp_path / "photos" / "a.HEIC").write_bytes(b"heic" + buffer.getvalue())
        assert found(tmp_path / "photos") == ["a.HEIC"]
        assert (images.read_rgb(tmp_path / "photos" / "a.HEIC") == RGB).all()
    finally:
        Image.OPEN.pop("HEIF", None)
        images._register_heic.cache_clear()
        images._formats.cache_clear()


@pytest.mark.parametrize("parted", ["\n", "\r\n", "\0"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_on_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parted: str, mark: str
) -> None:
    touch(tmp_path / "a b.jpg", tmp_path / "é.jpg")
    listed = [str(tmp_path / name) for name in ("a b.jpg", "é.jpg", "none.jpg")]
    text = mark + parted.join(listed) + parted
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert found("-") == ["a b.jpg", "é.jpg", "none.jpg"]  # the last fails when it is read


def test_a_name_with_a_line_break_comes_through_zero_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "two\nlines" / "a.jpg")
    data = str(tmp_path / "two\nlines" / "a.jpg").encode() + b"\0"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert found("-") == ["a.jpg"]


def png_of_16_bits(values):
    """A PNG of RGB with 16 bits, which Pillow does not write: values uint16 (H, W, 3)."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


@pytest.mark.parametrize(
    ("highest", "said"),
    [
        (0, None),
        (1023, "none above 1023: if it is of 10 bits it is read too dark, so multiply its values by 64"),
        (4095, "none above 4095: if it is of 12 bits it is read too dark, so multiply its values by 16"),
        (16383, "none above 16383: if it is of 14 bits"),
        (16384, None),
        (65535, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "rgb.png"])
def test_images_of_fewer_bits_than_16_are_named_once(
    highest, said, kind, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(images, "_warned", set())
    grey = np.linspace(0, highest, 48).reshape(6, 8).astype(np.uint16)
    path = tmp_path / kind
    if kind == "rgb.png":
        path.write_bytes(png_of_16_bits(np.stack([grey] * 3, -1)))
    else:
        Image.fromarray(grey).save(path)
    for _ in range(2):
        assert np.array_equal(images.read_rgb(path), np.stack([grey >> 8] * 3, -1))
    assert [record.getMessage().startswith(str(path)) for record in caplog.records] == [True] * (
        said is not None
    )
    assert said is None or said in caplog.text


def test_a_dark_image_of_8_bits_is_not_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(images, "_warned", set())
    Image.fromarray(np.full((16, 16, 3), 3, np.uint8)).save(tmp_path / "a.png")
    images.read_rgb(tmp_path / "a.png")
    assert not caplog.records


def test_folders_that_systems_make_are_passed_over(tmp_path):
    for name in ("a.png", "x/b.png", "__MACOSX/._a.png", "x/@eaDir/b.png/SYNOPHOTO_THUMB_M.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    assert [item.name for item in image_search.find_images([str(tmp_path)])] == ["a.png", "x/b.png"]

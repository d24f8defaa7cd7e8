"""Images in and out: 8-bit RGB, upright, whatever the file holds; and finding them."""

import functools
import io
import logging
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, UnidentifiedImageError

from ovtool.errors import InputError
from ovtool.formats import atomic

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2",
    ".avif",
)  # fmt: skip
MAX_PIXELS = 178_956_970  # Pillow's own limit between a warning and an error
# those that hold pixels; Pillow would also start other programs, for EPS
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
           OverflowError, struct.error, zlib.error)  # fmt: skip

logger = logging.getLogger("ovtool")


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An image to work on: where it is, and its name in what is written (a COCO file_name)."""

    path: Path
    name: str


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image as uint8 (H, W, 3), turned as its EXIF orientation says.

    Grey, palette and CMYK become RGB; 16-bit values lose their lower byte; what is transparent lies
    on white; of an animation or a stack, the first frame is taken.

    Raises:
        InputError: no such file, not an image, truncated or damaged, more than 178,956,970 pixels,
            or pixels without a known range (floating point).
    """
    with opened(path) as image:
        return _upright(image, path)


def decode_rgb(data: bytes, name: str) -> NDArray[np.uint8]:
    """As ``read_rgb`` for the content of a file, which errors call ``name``."""
    with opened(Path(name), data) as image:
        return _upright(image, Path(name))


def of_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """As ``read_rgb`` for a Pillow image. Raises InputError for pixels without a known range."""
    return _upright(image, Path("the image"))


def _upright(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    image.load()
    turn = _TURNS.get(_orientation(image))  # after loading: TIFF is turned by then
    rgb = _to_rgb(image, path)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def read_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels of what ``read_rgb`` gives, in most cases without decoding it.

    Raises InputError for what cannot be opened; a truncated file may pass.
    """
    with opened(path) as image:
        width, height = image.size
        # a TIFF that is to be turned says its turned size from the start
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
        return height, width


def write_png(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes uint8 (H, W), (H, W, 3) or (H, W, 4) as PNG, atomically; equal pixels, equal bytes."""
    save_png(path, Image.fromarray(np.ascontiguousarray(array)))


def save_png(path: Path, image: Image.Image) -> None:
    """Writes a Pillow image as PNG, atomically and without metadata. Raises InputError."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    atomic.write_bytes(path, buffer.getvalue())


def find_images(inputs: Sequence[str]) -> list[ImageItem]:
    """The images that files, folders and ``-`` (a list of names on stdin, one a line) stand for.

    Folders are searched with all below them, hidden ones aside, in the order of their names; an
    image of a folder is named by its path from there, a single file by its own name. Where two
    would have one name, all are named from the deepest folder that holds them all. An image given
    twice counts once.

    Raises:
        InputError: nothing there, a folder with no image, or a name that COCO JSON cannot hold.
    """
    items: list[ImageItem] = []
    for given in _listed(inputs):
        path = Path(given)
        if path.is_dir():
            found = [ImageItem(path / name, name) for name in sorted(_walk(path))]
            if not found:
                raise InputError(f"no image in {path}: it holds no {' '.join(SUFFIXES)}")
            items += found
        elif path.exists():
            items.append(ImageItem(path, path.name))
        else:
            raise InputError(f"no such file or folder: {given}")
    once = {os.path.realpath(item.path): item for item in reversed(items)}
    if len(once) < len(items):
        logger.warning("%d images were given more than once", len(items) - len(once))
        kept = {id(item) for item in once.values()}
        items = [item for item in items if id(item) in kept]
    if len({item.name for item in items}) < len(items):
        items = _named_from_common_folder(items)
    for item in items:
        _check_name(item)
    return items


def _listed(inputs: Sequence[str]) -> Iterator[str]:
    for given in inputs:
        if str(given) != "-":
            yield str(given)
            continue
        listed = [line.strip("\r\n") for line in sys.stdin]
        if not any(listed):
            raise InputError("no image names on standard input; give one a line")
        yield from filter(None, listed)


def _walk(root: Path) -> list[str]:
    """Relative POSIX names of the images below a folder; links to folders are followed once."""
    found: list[str] = []
    seen = {os.path.realpath(root)}
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(f"cannot read the folder {folder}: {error.strerror}") from None
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir():
                if os.path.realpath(path) not in seen:
                    seen.add(os.path.realpath(path))
                    folders.append(path)
            elif path.suffix.lower() in SUFFIXES:
                found.append(path.relative_to(root).as_posix())
    return found


def _named_from_common_folder(items: list[ImageItem]) -> list[ImageItem]:
    absolute = [Path(os.path.abspath(item.path)) for item in items]
    try:
        root = os.path.commonpath([path.parent for path in absolute])
    except ValueError:
        raise InputError(
            "images on different drives have the same names; give them in separate runs"
        ) from None
    return [
        ImageItem(item.path, path.relative_to(root).as_posix())
        for item, path in zip(items, absolute, strict=True)
    ]


def _check_name(item: ImageItem) -> None:
    if "\\" in item.name or not item.name.isprintable():  # bytes that are no UTF-8 neither
        raise InputError(
            f"{str(item.path)!r}: a backslash, control character or byte that is not UTF-8 in its "
            "name, which COCO JSON cannot hold; rename it"
        )


@contextmanager
def opened(path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """A Pillow image, its header read; what goes wrong in the block means a damaged file. With ``data``
    that is what the file holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images, odd metadata: ours to judge
            source = path if data is None else io.BytesIO(data)
            with Image.open(source, formats=_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not an image") from None
    except PermissionError:
        raise InputError(f"no permission to read {path}") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{path} has more than {MAX_PIXELS:,} pixels: refused, as it may be made to exhaust "
            "the memory; scale it down or cut it"
        ) from None
    except UnidentifiedImageError:
        if data == b"" or (data is None and Path(path).stat().st_size == 0):
            raise InputError(f"{path} is empty; replace or remove it") from None
        raise InputError(
            f"{path} is not an image that can be read ({', '.join(_FORMATS)}); convert or remove it"
        ) from None
    except _BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} is truncated or damaged ({reason}); replace or remove it"
        ) from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of ``_FORMATS`` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # the chunk may come after the pixels
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if value in _TURNS else 1


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image) >> 8)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has 32-bit pixels without a known range; convert it to 8 bit")
        return _grey(values >> 8)
    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels without a known range; convert it to "
                         "8 bit")  # fmt: skip
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every such JPEG for one of Adobe's, whose inks are stored upside down
        return ImageChops.invert(image).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colours).convert("RGB")
    return image.convert("RGB")


def _grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")

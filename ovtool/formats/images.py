"""Images in and out: 8-bit RGB, upright, whatever the file holds."""

import functools
import importlib
import importlib.util
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ovtool.errors import InputError, OvtoolError
from ovtool.formats import atomic, wrong_kind

RESULT = ("Software", "ovtool")  # the text chunk of a PNG that shows a result
HEIC_SUFFIXES = (".heic", ".heif", ".hif")  # images where the extra `heic` is installed
Exif = Literal[
    "upright", "stored"
]  # turned as the EXIF orientation says, or as the pixels are stored
HEIC_MEND = "HEIC is read with the extra heic: pip install 'ovtool[heic]'"
MAX_PIXELS = 178_956_970  # Pillow's own limit between a warning and an error
# those that hold pixels; Pillow would also start other programs, for EPS
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_PLUGINS = ("Jpeg", "Png", "WebP", "Bmp", "Gif", "Tiff", "Ppm", "Jpeg2K", "Avif")  # that read them
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
_INVERSE = {6: 8, 8: 6}  # every other turn undoes itself
_warned: set[str] = set()  # what is said once of a run

logger = logging.getLogger("ovtool")


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An image to work on: where it is, its name in what is written (a COCO file_name), and the id that a
    COCO file gives it, which the output keeps, and how its pixels lie (`Exif`)."""

    path: Path
    name: str
    id: int | None = None
    exif: Exif = "upright"

    def rgb(self) -> NDArray[np.uint8]:
        """Its pixels, as `read_rgb` gives them."""
        return read_rgb(self.path, self.exif)


def read_rgb(path: Path, exif: Exif = "upright") -> NDArray[np.uint8]:
    """An image as uint8 (H, W, 3), turned as its EXIF orientation says or, with ``exif`` ``stored``, as
    it is stored, which some labels were drawn on.

    Grey, palette and CMYK become RGB; 16-bit values lose their lower byte, and one warning names the first
    image whose values need 10, 12 or 14 bits alone, since it is read dark; what is transparent lies on
    white; of an animation or a stack, the first frame is taken.

    Raises:
        InputError: no such file, not an image, truncated or damaged, more than 178,956,970 pixels,
            or pixels without a known range (floating point).
    """
    with opened(path) as image:
        return _pixels(image, path, exif)


def decode_rgb(data: bytes, name: str) -> NDArray[np.uint8]:
    """As ``read_rgb`` for the content of a file, which errors call ``name``."""
    with opened(Path(name), data) as image:
        return _pixels(image, Path(name), "upright")


def of_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """As ``read_rgb`` for a Pillow image. Raises InputError for pixels without a known range."""
    return _pixels(image, Path("the image"), "upright")


def _pixels(image: Image.Image, path: Path, exif: Exif) -> NDArray[np.uint8]:
    has_16_bits = any("16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    is_tiff, orientation = image.format == "TIFF", _orientation(image)
    image.load()
    # Pillow has turned a TIFF by now, and no other
    if is_tiff:
        orientation = 1 if exif == "upright" else _INVERSE.get(orientation, orientation)
    elif exif == "stored":
        orientation = 1
    rgb, turn = _to_rgb(image, path), _TURNS.get(orientation)
    pixels = np.array(rgb if turn is None else rgb.transpose(turn))
    if has_16_bits or image.mode.startswith("I;16"):
        _warn_of_depth(int(pixels.max()), path)
    return pixels


def _warn_of_depth(highest: int, path: Path) -> None:
    """Warns once of 16-bit images whose highest upper byte is that of fewer bits."""
    bits = next((bits for bits in (10, 12, 14) if 0 < highest < 2 ** (bits - 8)), None)
    if bits is not None and "depth" not in _warned:
        _warned.add("depth")
        logger.warning(
            "%s has 16 bits a value, and none above %d: if it is of %d bits it is read too dark, so multiply its "
            "values by %d; others like it are not named",
            path, 2**bits - 1, bits, 2 ** (16 - bits),
        )  # fmt: skip


def read_size(path: Path, exif: Exif = "upright") -> tuple[int, int]:
    """Height and width in pixels of what ``read_rgb`` gives, in most cases without decoding it.

    Raises InputError for what cannot be opened; a truncated file may pass.
    """
    with opened(path) as image:
        width, height = image.size
        # a TIFF that is to be turned says its turned size from the start
        is_stored = image.format != "TIFF"
        if _orientation(image) >= 5 and is_stored == (exif == "upright"):
            width, height = height, width
        return height, width


def count_turned(paths: Iterable[Path]) -> int:
    """How many images are turned or mirrored by their EXIF orientation; what cannot be read is none."""
    turned = 0
    for path in paths:
        with suppress(InputError), opened(path) as image:
            turned += _orientation(image) != 1
    return turned


def warn_of_turned(items: Sequence[ImageItem], labels: str) -> None:
    """One warning where images that have labels are turned by their EXIF orientation."""
    if turned := count_turned(item.path for item in items):
        logger.warning(
            "%d of the %d images are turned by their EXIF orientation, and their %s are taken for those of "
            "the upright images; give --exif stored where they belong to the pixels as they are stored",
            turned, len(items), labels,
        )  # fmt: skip


def write_png(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes uint8 (H, W), (H, W, 3) or (H, W, 4) as PNG, atomically; equal pixels, equal bytes."""
    save_png(path, Image.fromarray(np.ascontiguousarray(array)))


def save_png(path: Path, image: Image.Image, *, is_drawn: bool = True) -> None:
    """Writes a Pillow image as PNG, atomically. Raises InputError.

    is_drawn: the file says that it shows a result, and a search of folders leaves it out (`is_result`).
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6, pnginfo=drawn_mark() if is_drawn else None)
    atomic.write_bytes(path, buffer.getvalue())


def drawn_mark() -> PngInfo:
    """What a PNG holds that shows a result (`is_result`)."""
    text = PngInfo()
    text.add_text(*RESULT)
    return text


def is_result(path: Path) -> bool:
    """Whether a file is a PNG that shows a result of ovtool: an overlay, heat map, label map or plot."""
    if path.suffix.lower() != ".png" or not path.is_file():
        return False
    try:
        with open(path, "rb") as handle:
            return b"tEXt" + b"\0".join(text.encode() for text in RESULT) in handle.read(256)
    except OSError:
        return False  # its reader says why


def has_heic() -> bool:
    """Whether the extra `heic` is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


@contextmanager
def opened(path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """A Pillow image, its header read; what goes wrong in the block means a damaged file. With ``data``
    that is what the file holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images, odd metadata: ours to judge
            if data is None and not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
                raise InputError(f"{path} is a pipe or a device; give the name of an image")
            source = path if data is None else io.BytesIO(data)
            if path.suffix.lower() in HEIC_SUFFIXES:
                _register_heic()
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
        if path.suffix.lower() in HEIC_SUFFIXES and not has_heic():
            raise InputError(f"{path} is HEIC; {HEIC_MEND}, or convert it") from None
        if what := wrong_kind.of_beginning(path if data is None else data):
            raise InputError(f"{path} {what}") from None
        raise InputError(
            f"{path} is not an image that can be read ({', '.join(_formats())}); convert or remove it"
        ) from None
    except (OvtoolError, MemoryError):
        raise
    except Exception as error:  # each decoder has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} is truncated or damaged ({reason}); replace or remove it"
        ) from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of ``_FORMATS`` that this Pillow was built with, or was taught since."""
    for name in _PLUGINS:  # all of Pillow's, which has thirty more, take twice as long
        with suppress(ImportError):
            importlib.import_module(f"PIL.{name}ImagePlugin")
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def _register_heic() -> None:
    """Teaches Pillow HEIC, once, where the extra is installed."""
    if has_heic():
        importlib.import_module("pillow_heif").register_heif_opener()
        _formats.cache_clear()


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # the chunk may come after the pixels
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever a broken EXIF block raises
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

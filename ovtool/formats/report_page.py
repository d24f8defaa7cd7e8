"""A report: one HTML file that holds its images, regions and curves, and needs nothing else.

An image is kept as JPEG. What is drawn over it is kept as numbers in a PNG, which the page's script colours
when the image comes into view: of regions the number of the region at each pixel (red + 256 green, 0 for
none), of activation maps their values, one map below the other.
"""

import base64
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovtool.formats import atomic, colours

_QUALITY = 78  # of the JPEGs
MAX_REGIONS = 2**16 - 1


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of an image.

    labels: int32 (H, W), the place of the region in `words`, -1 for none. words: the class of each region,
    by its place in the page's words. scores: of each region, in [0, 1], or None. distinct: whether each region has a
    colour of its own, and not that of its word.
    """

    labels: NDArray[np.int32]
    words: Sequence[int]
    scores: Sequence[float | None]
    distinct: bool = False


@dataclass(frozen=True, eq=False)
class Heat:
    """Activation maps of an image: float (K, h, w) in [0, 1], and the class of each."""

    maps: NDArray[np.float32]
    words: Sequence[int]


@dataclass(frozen=True, eq=False)
class Figure:
    """An image with what the files hold of it, one layer a file, None where a file lacks it.

    `measures` are shares by name, that images can be sorted by; None where there is nothing to divide by.
    """

    name: str
    rgb: NDArray[np.uint8]
    layers: Sequence[Regions | Heat | None]
    measures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows of text and shares; a share (a float in [0, 1], or None) is drawn as a bar."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


@dataclass(frozen=True)
class Curves:
    """Losses and measures over steps: name to (steps, values)."""

    title: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Content:
    """All that a page says but its images.

    layers: the name of each layer of the figures. words: the name of every class. made_by: the name of a
    file and what made it. asked: the digest of the request (`inputs.asked`), which the page keeps.
    """

    title: str
    layers: Sequence[str] = ()
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    curves: Sequence[Curves] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)
    asked: str | None = None


def packed(figure: Figure, side: int) -> dict[str, Any]:
    """A figure as the page's script reads it, its images as data addresses, at most `side` pixels long."""
    height, width = figure.rgb.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(figure.rgb).resize(size, Image.Resampling.LANCZOS)
    return {
        "name": figure.name,
        "size": size,
        "image": _address(small, "jpeg", quality=_QUALITY, optimize=True),
        "layers": [
            None if layer is None else _packed_layer(layer, size) for layer in figure.layers
        ],
        "measures": dict(figure.measures),
    }


def _packed_layer(layer: Regions | Heat, size: tuple[int, int]) -> dict[str, Any]:
    if isinstance(layer, Heat):
        count, height, width = layer.maps.shape
        stack = (layer.maps.reshape(count * height, width) * 255).round().astype(np.uint8)
        drawn = Image.fromarray(stack)
        return {"heat": _address(drawn, "png"), "words": list(layer.words), "size": [width, height]}
    numbers = Image.fromarray((layer.labels + 1).astype(np.int32)).resize(
        size, Image.Resampling.NEAREST
    )
    values = np.asarray(numbers)
    channels = np.stack([values % 256, values // 256, np.zeros_like(values)], axis=-1)
    pixels = np.bincount(layer.labels.ravel() + 1, minlength=len(layer.words) + 1)[1:]
    return {
        "regions": _address(Image.fromarray(channels.astype(np.uint8)), "png", optimize=True),
        "words": list(layer.words),
        "scores": [None if score is None else round(score, 4) for score in layer.scores],
        "distinct": layer.distinct,
        "shares": [round(float(count) / layer.labels.size, 4) for count in pixels],
    }


def _address(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class Figures:
    """The images of a page, packed; they lie in a temporary file without a name (in `TMPDIR`).

    Attributes:
        used: the places of the words that stand in a layer.
        measures: the names of the measures, in the order in which they came.
    """

    def __init__(self) -> None:
        self.used: set[int] = set()
        self.measures: dict[str, None] = {}
        self._count = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="ovtool-report-")
        except OSError as error:
            raise atomic.temporary_error(error) from None

    def add(self, figure: Mapping[str, Any]) -> None:
        """Adds what `packed` made. Raises InputError where the temporary file cannot be written."""
        self.used.update(word for layer in figure["layers"] if layer for word in layer["words"])
        self.measures.update(dict.fromkeys(figure["measures"]))
        try:
            self._file.write(json.dumps([figure["name"], _embedded(figure)]).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise atomic.temporary_error(error) from None
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The name of each image, and what the page's script reads of it."""
        self._file.seek(0)
        for line in self._file:
            name, data = json.loads(line)
            yield name, data


def write(path: Path, content: Content, figures: Figures) -> int:
    """Writes the page, and returns its bytes.

    Args:
        path: The file.
        content: What it says.
        figures: The images with their layers.

    Raises:
        InputError: The file cannot be written.
    """
    import jinja2  # slow to import

    folder = files("ovtool.formats") / "page"
    used = sorted(figures.used)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    stream = template.stream(
        content=content,
        used=used,
        style=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
        data=_embedded(
            {
                "layers": list(content.layers),
                "words": list(content.words),
                "used": used,
                "colours": colours.class_colours(content.words),
                "curves": [asdict(curve) for curve in content.curves],
            }
        ),
        figures=figures,
        measures=list(figures.measures),
        made_by={
            name: json.dumps(made, indent=2, ensure_ascii=False, sort_keys=True)
            for name, made in content.made_by.items()
        },
    )
    with atomic.writing(path) as page:
        return sum(page.write(piece.encode()) for piece in stream)


def _embedded(value: Any) -> str:
    """JSON that may stand in a script element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII: no line separators of JavaScript
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

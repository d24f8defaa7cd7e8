"""Style augmentation of drawings: a model that has seen ten styles should read an eleventh.

Every function takes a random generator and an RGBA image and returns one of the same kind.
"""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

# Luma weights of ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _warp(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """An elastic bend with another aspect: a 3 x 3 mesh whose inner corners move by up to 9 %."""
    width, height = drawing.size
    aspect = np.exp(rng.uniform(-0.25, 0.25))
    target = (max(8, round(width * aspect**0.5)), max(8, round(height / aspect**0.5)))
    shear = rng.uniform(-0.15, 0.15)
    rows, columns = np.meshgrid(np.linspace(0, 1, 4), np.linspace(0, 1, 4), indexing="ij")
    source_x = (columns + shear * (rows - 0.5) + rng.uniform(-0.06, 0.06, (4, 4))) * width
    source_y = (rows + rng.uniform(-0.06, 0.06, (4, 4))) * height
    edges_x = np.linspace(0, target[0], 4).astype(int)
    edges_y = np.linspace(0, target[1], 4).astype(int)
    mesh = []
    for row in range(3):
        for column in range(3):
            box = (edges_x[column], edges_y[row], edges_x[column + 1], edges_y[row + 1])
            corners = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            quad = [float(v) for at in corners for v in (source_x[at], source_y[at])]
            mesh.append((tuple(int(v) for v in box), tuple(quad)))
    return drawing.transform(target, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _colour(rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
    """Another hue, saturation and contrast; now and then grey or any hue at all."""
    kind = rng.random()
    turn = rng.uniform(-np.pi, np.pi) if kind < 0.15 else rng.normal(0, 0.25)
    saturation = 0.0 if 0.15 <= kind < 0.25 else rng.uniform(0.5, 1.5)
    # A turn about the grey axis (Rodrigues), then a pull towards luma.
    axis = 1 / np.sqrt(3)
    cross = axis * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    hue = np.cos(turn) * np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) / 3
    matrix = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _LUMA)
    rgb = rgb @ (matrix @ hue).T.astype(np.float32)
    return (rgb - 128) * np.float32(rng.uniform(0.6, 1.4)) + 128 + np.float32(rng.uniform(-25, 25))


def _outlined(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """A dark line around the drawing, as line-art styles have."""
    alpha = drawing.getchannel("A")
    wide = alpha.filter(ImageFilter.MaxFilter(int(rng.choice([3, 5, 7]))))
    tone = int(rng.integers(0, 70))
    line = Image.merge("RGBA", [Image.new("L", drawing.size, tone)] * 3 + [wide])
    return Image.alpha_composite(line, drawing)


def _line_art(drawing: Image.Image) -> Image.Image:
    """Dark edges on a light filling."""
    edges = (
        drawing.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda v: 255 - min(255, 3 * v))
    )
    return Image.merge("RGBA", [edges] * 3 + [drawing.getchannel("A")])


def restyle(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """The drawing in another style, drawn at random; about one in ten is left as it is."""
    if rng.random() < 0.1:
        return drawing
    if rng.random() < 0.7:
        drawing = _warp(rng, drawing)
    if rng.random() < 0.06:
        drawing = _line_art(drawing)
    if rng.random() < 0.8:
        pixels = np.asarray(drawing)
        rgb = _colour(rng, pixels[..., :3].astype(np.float32))
        if rng.random() < 0.25:
            step = 255 / rng.integers(2, 6)
            rgb = np.round(rgb / step) * step
        drawing = Image.fromarray(
            np.concatenate([np.clip(rgb, 0, 255).astype(np.uint8), pixels[..., 3:]], 2)
        )
    if rng.random() < 0.2:
        drawing = _outlined(rng, drawing)
    if rng.random() < 0.2:
        drawing = drawing.filter(ImageFilter.BoxBlur(float(rng.uniform(0.5, 2.0))))
    elif rng.random() < 0.15:
        drawing = drawing.filter(ImageFilter.UnsharpMask(2, 150))
    if rng.random() < 0.1:
        shift = ImageChops.offset(
            drawing.getchannel("A"), int(rng.integers(-3, 4)), int(rng.integers(-3, 4))
        )
        drawing = drawing.copy()
        drawing.putalpha(ImageChops.darker(shift, drawing.getchannel("A")))
    return drawing

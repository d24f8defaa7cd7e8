"""What a page keeps of images and regions, decoded again with Pillow and the json module."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image

from ovtool.formats import report_page
from ovtool.formats.report_page import Content, Curves, Figure, Heat, Regions, Table


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def figure(layers, name="a.jpg"):
    return Figure(name, np.full((4, 6, 3), 90, np.uint8), layers, {"IoU": 0.5})


def test_regions_are_kept_as_numbers():
    labels = np.array([[0, 0, 1, -1, -1, 1]] * 4, np.int32)
    layer = Regions(labels, [7, 3], [0.25, None])
    packed = report_page.packed(figure([layer, None]), 100)
    assert packed["size"] == (6, 4)
    assert packed["layers"][1] is None
    kept = packed["layers"][0]
    assert pixels(kept["regions"])[0].tolist() == [
        [1, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0], [2, 0, 0],
    ]  # fmt: skip
    assert kept["shares"] == [0.3333, 0.3333]  # 8 and 8 of 24 pixels
    assert kept["scores"] == [0.25, None]


def test_more_than_255_regions_need_two_channels():
    labels = np.arange(300, dtype=np.int32).reshape(15, 20)
    rgb = np.zeros((15, 20, 3), np.uint8)
    layer = Regions(labels, [0] * 300, [None] * 300)
    kept = report_page.packed(Figure("a", rgb, [layer]), 100)["layers"][0]
    red, green, _ = np.moveaxis(pixels(kept["regions"]).astype(int), -1, 0)
    assert (red + 256 * green - 1).ravel().tolist() == list(range(300))


def test_large_images_are_made_smaller_and_regions_stay_whole_numbers():
    labels = np.zeros((200, 400), np.int32)
    labels[:, 200:] = 1
    made = Figure("a", np.zeros((200, 400, 3), np.uint8), [Regions(labels, [0, 1], [None, None])])
    packed = report_page.packed(made, 100)
    assert packed["size"] == (100, 50)
    assert np.unique(pixels(packed["layers"][0]["regions"])[..., 0]).tolist() == [1, 2]


def test_activation_maps_lie_one_below_the_other():
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, 0, 0], maps[1, 2, 3] = 1.0, 0.2
    kept = report_page.packed(figure([Heat(maps, [5, 1])]), 100)["layers"][0]
    stack = pixels(kept["heat"])
    assert stack.shape == (6, 4)
    assert (stack[0, 0], stack[5, 3], stack.sum()) == (255, 51, 306)


def test_names_are_text_and_never_markup(tmp_path):
    name = "</script><script>alert(1)</script>.jpg"
    path = tmp_path / "page.html"
    layer = Regions(np.zeros((4, 6), np.int32), [0], [None])
    content = Content(
        name, ["layer"], [name], [Table(name, (name,), [(name, 0.5, None)])],
        [Curves(name, {name: ([1], [2.0])})], {name: {"command": name}},
    )  # fmt: skip
    figures = report_page.Figures()
    figures.add(report_page.packed(figure([layer], name), 50))
    size = report_page.write(path, content, figures)
    html = path.read_text(encoding="utf-8")
    assert size == path.stat().st_size
    assert "<script>alert" not in html
    embedded = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert json.loads(embedded[0])["name"] == name
    assert json.loads(embedded[1])["words"] == [name]
    assert html.count("http") == html.count("http://www.w3.org/2000/svg")  # nothing is fetched

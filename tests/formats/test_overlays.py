"""Overlays show what was found under colours that never change, and leave the rest alone."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from ovtool.datasets.vocabularies import named
from ovtool.formats import colours, fonts, label_maps, legend, overlays

RNG = np.random.default_rng(0)


def picture(height: int, width: int) -> overlays.Rgb:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def blocks(height: int, width: int, count: int) -> np.ndarray:
    """Labels -1 to count - 1 in stripes."""
    return np.broadcast_to(np.arange(width) * (count + 1) // width - 1, (height, width)).copy()


def has_colour(array: overlays.Rgb, colour: tuple[int, int, int]) -> bool:
    return bool((array == np.array(colour)).all(axis=-1).any())


def distances(found: list[tuple[int, int, int]]) -> np.ndarray:
    """Between all colours, in Oklab; the diagonal is infinite."""
    lab = colours._to_oklab(np.array(found))
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return apart


@pytest.mark.parametrize(
    ("word", "colour"),
    [
        ("person", (190, 219, 0)),
        ("teapot", (158, 93, 238)),
        ("apple", (255, 80, 101)),
        ("cat", (47, 81, 216)),
        ("茶壶", (0, 175, 217)),
    ],
)
def test_a_word_has_one_colour_for_ever(word: str, colour: tuple[int, int, int]) -> None:
    assert overlays.word_colour(word) == overlays.word_colour(word.upper()) == colour
    assert overlays.word_colours([word]) == [colour]


def test_colours_are_vivid() -> None:
    lab = colours._to_oklab(np.array([overlays.word_colour(f"word {k}") for k in range(500)]))
    assert (np.hypot(lab[:, 1], lab[:, 2]) > 0.12).all()
    assert lab[:, 0].min() > 0.48 and lab[:, 0].max() < 0.9


def test_oklab_is_that_of_its_author() -> None:
    """The examples of Ottosson's page, as sRGB: white, and the primaries known from CSS Color 4."""
    found = colours._to_oklab(np.array([(255, 255, 255), (255, 0, 0), (0, 0, 255)]))
    known = [(1.0, 0.0, 0.0), (0.62796, 0.22486, 0.12585), (0.45201, -0.03246, -0.31153)]
    assert np.abs(found - known).max() < 1e-4
    assert colours._colour(found[1]) == (255, 0, 0)


@pytest.mark.parametrize(("vocabulary", "apart"), [("voc20", 0.09), ("coco171", 0.043)])
def test_colours_of_one_picture_differ(vocabulary: str, apart: float) -> None:
    words = named(vocabulary).names
    own = [overlays.word_colour(word) for word in words]
    found = overlays.word_colours(words)
    assert distances(own).min() < 0.04  # chance alone does not do it
    assert distances(found).min() > apart
    assert found[0] == own[0]
    assert sum(a == b for a, b in zip(found, own, strict=True)) >= len(words) // 3
    assert found == overlays.word_colours(words)


def test_a_word_moves_only_if_an_earlier_one_is_too_alike() -> None:
    words = [f"word {k}" for k in range(300)]
    own = {word: overlays.word_colour(word) for word in words}
    near = distances(list(own.values())) < 0.02
    first, second = (words[k] for k in np.argwhere(near)[0])
    far = next(w for w in words if distances([own[w], own[first], own[second]])[0].min() > 0.2)
    found = overlays.word_colours([first, far, second])
    assert found[:2] == [own[first], own[far]] and found[2] != own[second]
    assert distances(found).min() >= 0.11
    assert overlays.word_colours([second, first])[0] == own[second]


def test_odd_lists_of_words() -> None:
    assert overlays.word_colours([]) == []
    assert len(set(overlays.word_colours(["cat", "Cat", "dog", "cat"]))) == 2
    many = overlays.word_colours([f"word {k}" for k in range(847)])
    assert len(set(many)) == 847


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((72, 72), (504, 504)),
        ((256, 256), (512, 512)),
        ((300, 439), (600, 878)),
        ((300, 440), (300, 440)),
        ((2048, 100), (2048, 100)),
        ((1, 1), (440, 440)),
        ((30, 2100), (29, 2048)),
        ((3000, 1500), (2048, 1024)),
    ],
)
def test_shapes(size: tuple[int, int], shown: tuple[int, int]) -> None:
    result = overlays.overlay(picture(*size), np.zeros(size, int), ["cat"])
    assert result.dtype == np.uint8 and result.shape[2] == 3
    assert result.shape[1] == max(shown[1], overlays.NARROWEST)
    strip = result[shown[0] :]
    assert strip.shape[0] >= 30 and has_colour(strip, overlays.word_colour("cat"))
    assert not has_colour(strip[:3], overlays.word_colour("cat"))  # the picture ends there


@pytest.mark.parametrize("size", [(60, 48), (500, 450)])
def test_unlabelled_pixels_are_as_they_were(size: tuple[int, int]) -> None:
    rgb = picture(*size)
    labels = RNG.integers(-1, 3, size)
    labels[: size[0] // 2] = -1
    result = overlays.overlay(rgb, labels, ["cat", "dog", "cow"])
    factor = -(-overlays.NARROWEST // size[1])
    larger = rgb.repeat(factor, 0).repeat(factor, 1)
    free = labels.repeat(factor, 0).repeat(factor, 1) == -1
    shown = result[: larger.shape[0], : larger.shape[1]]
    assert (shown[free] == larger[free]).all()
    assert (shown[~free] != larger[~free]).any(axis=-1).mean() > 0.98


def test_a_mask_is_half_its_colour_and_its_contour_all_of_it() -> None:
    rgb = np.full((500, 500, 3), 100, np.uint8)
    labels = np.full((500, 500), -1)
    labels[100:400, 100:400] = 0
    result = overlays.overlay(rgb, labels, ["teapot"])
    colour = np.array(overlays.word_colour("teapot"))
    assert (result[250, 250] == (100 + colour) // 2).all()
    assert (result[250, 100] == colour).all() and (result[399, 250] == colour).all()
    assert (result[250, 102] < result[250, 250]).all()  # the dark line within
    assert (result[:100, :500] == 100).all() and (result[250, 400:] == 100).all()


def test_no_contour_along_the_edge_of_the_picture() -> None:
    result = overlays.overlay(np.full((500, 500, 3), 100, np.uint8), np.zeros((500, 500), int), "c")
    assert (result[:500] == result[0, 0]).all()


def test_thin_structures_show_in_their_full_colour() -> None:
    labels = np.full((500, 500), -1)
    labels[:, 250] = 0
    result = overlays.overlay(picture(500, 500), labels, ["wire"])
    assert (result[:500, 250] == overlays.word_colour("wire")).all()


def test_the_legend_names_the_words_that_occur_largest_first() -> None:
    labels = np.full((450, 450), -1)
    labels[:300] = 2
    labels[300:350] = 0
    names = ["cat", "dog", "teapot"]
    result = overlays.overlay(picture(450, 450), labels, names)
    strip = result[450:]
    first, second = (
        np.argwhere((strip == overlays.word_colour(name)).all(axis=-1)).mean(axis=0)
        for name in ("teapot", "cat")
    )
    assert tuple(first[::-1]) < tuple(second[::-1])  # columns are read downwards
    assert not has_colour(strip, overlays.word_colour("dog"))


def test_the_legend_says_shares_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[legend.Entry] = []
    draw = legend._draw_entry
    monkeypatch.setattr(legend, "_draw_entry", lambda *args: (seen.append(args[2]), draw(*args))[1])
    labels = np.zeros((100, 100), int)
    labels[:5] = 1
    labels[-1, :3] = 2
    overlays.overlay(picture(100, 100), labels, ["cat", "dog", "flea"], [0.876, None, 1.0])
    said = [(entry.name, entry.share, entry.score) for entry in seen]
    assert said == [("cat", "95 %", "0.88"), ("dog", "5.0 %", ""), ("flea", "<0.1 %", "1.00")]


def test_scores_change_the_strip_alone() -> None:
    rgb, labels = picture(450, 450), blocks(450, 450, 2)
    without = overlays.overlay(rgb, labels, ["cat", "dog"])
    scored = overlays.overlay(rgb, labels, ["cat", "dog"], [0.5, None])
    assert (without[:450] == scored[:450]).all() and not np.array_equal(without, scored)


def test_nothing_labelled() -> None:
    rgb = picture(450, 450)
    result = overlays.overlay(rgb, np.full((450, 450), -1), ["cat"])
    assert (result[:450] == rgb).all()
    assert result[450:].max() > 150  # a line of text


@pytest.mark.parametrize("count", [1, 3, 20, 171, 847])
def test_any_number_of_words_fits(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    draw = legend.ImageDraw.ImageDraw.text

    def text(self, place, words, *args, **kwargs):  # type: ignore[no-untyped-def]
        notes.append(words)
        right = place[0] + (args[1].getlength(words) if kwargs["anchor"] == "lm" else 0)
        assert 0 <= place[0] and right <= self.im.size[0] and 0 < place[1] < self.im.size[1]
        assert args[1].size >= 13
        return draw(self, place, words, *args, **kwargs)

    monkeypatch.setattr(legend.ImageDraw.ImageDraw, "text", text)
    names = [f"word number {k} of many" for k in range(count)]
    labels = np.resize(np.arange(count), (256, 256))
    result = overlays.overlay(picture(256, 256), labels, names)
    assert 512 < result.shape[0] < 512 * 1.5
    shown = [note for note in notes if note.startswith("word")]
    more = [note for note in notes if note.endswith("more")]
    assert more == ([] if len(shown) == count else [f"+{count - len(shown)} more"])
    assert len(shown) == count or count > 20


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("teapot", "teapot"),
        ("café  au\nlait", "café au lait"),
        ("Straße in Łódź", "Straße in Łódź"),
        ("чайник", "чайник"),
        ("τσαγιέρα", "τσαγιέρα"),
        ("إبريق", "إبريق"),
        ("\u200b", "class 7"),
        ("\ud800", "class 7"),
        ("--", "class 7"),
    ],
)
def test_names_beyond_the_font(name: str, shown: str) -> None:
    assert legend.entry(name, 7, 0.5, None, None).name == shown
    assert overlays.overlay(picture(20, 20), np.zeros((20, 20), int), [name]).any()


def test_the_font_draws_what_is_taken_for_drawable() -> None:
    font = fonts.at(20)
    lacking = bytes(font.getmask("\uffff"))
    letters = [chr(code) for code in range(33, 0x2100) if fonts.is_plain(chr(code))]
    assert len(letters) > 90
    assert all(bytes(font.getmask(letter)) != lacking for letter in letters)


def test_names_are_cut_only_where_their_column_ends() -> None:
    entries = [legend.entry(f"word number {k}", k, 0.1, 0.5, (9, 9, 9)) for k in range(10, 70)]
    layout = legend._layout(entries, 640, 216, 13, 7)
    longest = max(layout.font.getlength(entry.name) for entry in entries)
    assert longest > 7 * 13 and layout.columns == 2 and layout.name_width == longest
    assert layout.columns * (1.5 * 13 + longest + layout.share_width + layout.score_width) < 620


def test_long_names_are_cut() -> None:
    font = fonts.at(13)
    name = (fonts.Piece("an extraordinarily long name"),)
    cut = "".join(piece.text for piece in legend._cut(name, 13, 100))
    assert cut.startswith("an extra") and cut.endswith("…") and font.getlength(cut) <= 101
    assert legend._cut((fonts.Piece("cat"),), 13, 100) == (fonts.Piece("cat"),)
    result = overlays.overlay(picture(20, 20), np.zeros((20, 20), int), ["word " * 400])
    assert result.shape[:2] < (520, 480)


def test_the_same_input_gives_the_same_picture() -> None:
    rgb, labels = picture(90, 120), blocks(90, 120, 7)
    names = [f"word {k}" for k in range(7)]
    before = rgb.copy(), labels.copy()
    first, second = (overlays.overlay(rgb, labels, names) for _ in range(2))
    assert np.array_equal(first, second)
    assert (rgb == before[0]).all() and (labels == before[1]).all()
    assert np.array_equal(overlays.overlay(rgb, labels.astype(np.int16), names), first)


def test_unsigned_labels() -> None:
    labels = np.full((30, 30), 255, np.uint8)
    names = [f"word {k}" for k in range(256)]
    result = overlays.overlay(picture(30, 30), labels, names)
    assert has_colour(result[-40:], colours.class_colours(names)[255])


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    rgb, labels = picture(4, 5), np.zeros((4, 5), int)
    with pytest.raises(ValueError, match="do not belong together"):
        overlays.overlay(rgb, labels.T, ["cat"])
    with pytest.raises(ValueError, match="do not belong together"):
        overlays.overlay(rgb[:0], labels[:0], ["cat"])
    with pytest.raises(ValueError, match="0 to 1 are not in -1 to 0"):
        overlays.overlay(rgb, np.arange(20).reshape(4, 5) % 2, ["cat"])
    with pytest.raises(ValueError, match="are not in -1 to 0"):
        overlays.overlay(rgb, labels - 2, ["cat"])
    with pytest.raises(ValueError, match="2 scores for 1 names"):
        overlays.overlay(rgb, labels, ["cat"], [1, 2])
    with pytest.raises(ValueError, match="do not belong together"):
        overlays.heatmap(rgb, np.zeros((5, 4)))


def lightness(array: overlays.Rgb) -> np.ndarray:
    return colours._to_oklab(array.reshape(-1, 3))[:, 0]


def test_heatmap_grows_lighter_with_the_score() -> None:
    rgb = np.full((100, 256, 3), 128, np.uint8)
    score = np.broadcast_to(np.linspace(0, 1, 256), (100, 256))
    result = overlays.heatmap(rgb, score)
    assert result.shape == rgb.shape and result.dtype == np.uint8
    row = lightness(result[:1])
    assert all(b >= a - 0.002 for a, b in pairwise(row)) and row[-1] > row[0] + 0.4
    steps = row[32::32] - row[:-32:32]
    assert steps.max() < 2.5 * steps.min()  # evenly


def test_heatmap_shows_the_picture_through() -> None:
    rgb = picture(100, 100)
    grey = np.asarray(Image.fromarray(rgb).convert("L")).ravel()
    shown = overlays.heatmap(rgb, np.full((100, 100), 0.5)).mean(axis=-1).ravel()
    assert np.corrcoef(grey[:5000], shown[:5000])[0, 1] > 0.99
    coloured = np.array([[[200, 0, 0]], [[0, 200, 0]]], np.uint8)
    result = overlays.heatmap(coloured, np.zeros((2, 1)))
    assert np.ptp(result[:, :, :2], axis=2).max() <= 1  # no colour of its own


def test_heatmap_has_a_scale_where_there_is_room() -> None:
    for size, drawn in (((300, 400), True), ((72, 72), False), ((1, 1), False), ((3, 900), False)):
        flat = np.full((*size, 3), 128, np.uint8)
        result = overlays.heatmap(flat, np.zeros(size))
        assert (not (result == result[0, 0]).all()) == drawn
        assert (result[: size[0] // 2 + 1] == result[0, 0]).all()


def test_heatmap_takes_what_lies_outside_the_range() -> None:
    rgb = picture(10, 10)
    score = np.array([[-1, np.nan, np.inf, 2, 0.5]]).repeat(10, 0).repeat(2, 1)
    known = np.array([[0, 0, 1, 1, 0.5]]).repeat(10, 0).repeat(2, 1)
    assert np.array_equal(overlays.heatmap(rgb, score), overlays.heatmap(rgb, known))


def test_a_script_without_a_font_is_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    own = fonts._files()[0]  # DejaVu Sans, which comes with matplotlib and has no Chinese
    monkeypatch.setattr(fonts, "_files", lambda: [own])
    fonts._with_letters.cache_clear()
    try:
        for name, shown in (("茶壶", "class 7"), ("茶 pot", "pot"), ("чайник", "чайник")):
            assert legend.entry(name, 7, 0.5, None, None).name == shown
        for name, shown in (("🫖", "class 7"), ("🫖 pot", "pot"), ("pot 🫖", "pot"), ("😀", "😀")):
            assert legend.entry(name, 7, 0.5, None, None).name == shown
    finally:
        fonts._with_letters.cache_clear()


def test_a_font_of_the_system_is_found_by_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_files", lambda: ["latin.ttf", "broken.ttf", "chinese.ttf"])
    letters = {"latin.ttf": "abc", "broken.ttf": "", "chinese.ttf": "abc茶壶"}
    monkeypatch.setattr(fonts, "_codes", lambda file: frozenset(map(ord, letters[file])))
    monkeypatch.setattr(fonts, "_is_usable", lambda file: True)
    fonts._with_letters.cache_clear()
    try:
        assert fonts.find("茶 壶") == "chinese.ttf"
        assert fonts.find("abc") == "latin.ttf"
        assert fonts.find("д") is None
    finally:
        fonts._with_letters.cache_clear()


@pytest.fixture
def fonts_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Puts fonts in place of the system's: their names and their letters."""

    def put(letters: dict[str, str]) -> None:
        monkeypatch.setattr(fonts, "_files", lambda: list(letters))
        monkeypatch.setattr(fonts, "_codes", lambda file: frozenset(map(ord, letters[file])))
        monkeypatch.setattr(fonts, "_is_usable", lambda file: True)
        monkeypatch.setattr(fonts, "_can_shape", lambda: True)

    fonts._with_letters.cache_clear()
    yield put
    fonts._with_letters.cache_clear()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("बिल्ली cat", [("बिल्ली ", "hindi"), ("cat", None)]),
        ("cat बिल्ली", [("cat ", None), ("बिल्ली", "hindi")]),
        ("猫😀", [("猫", "chinese"), ("😀", "signs")]),
        ("👩\u200d👧 family", [("family", None)]),
        ("café 猫", [("cafe ", None), ("猫", "chinese")]),
        ("猫\U000e0100", [("猫\U000e0100", "chinese")]),
        ("אב 猫 cat", [("אב ", "hebrew"), ("猫 ", "chinese"), ("cat", None)]),
        ("cat אב 猫", [("cat ", None), ("אב ", "hebrew"), ("猫", "chinese")]),
        ("𞤀", []),
    ],
)
def test_a_name_in_several_scripts_has_a_font_for_each(
    text: str, pieces: list[tuple[str, str | None]], fonts_of: Callable[[dict[str, str]], None]
) -> None:
    fonts_of({"hindi": "बिल्ली", "chinese": "猫狗", "signs": "😀", "hebrew": "אב"})
    assert [(piece.text, piece.font) for piece in fonts.pieces(text)] == pieces


@pytest.mark.parametrize(("name", "order"), [("אב 猫", "猫א"), ("猫 אב", "猫א"), ("cat אב", "cא")])
def test_pieces_stand_in_the_direction_of_the_first(
    name: str,
    order: str,
    fonts_of: Callable[[dict[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fonts_of({"chinese": "猫狗", "hebrew": "אב"})
    monkeypatch.setattr(fonts, "at", lambda size, file=None: legend.ImageFont.load_default(size))
    places: dict[str, float] = {}

    def text(self, place, words, *args, **kwargs):  # type: ignore[no-untyped-def]
        places[words[:1]] = place[0]

    monkeypatch.setattr(legend.ImageDraw.ImageDraw, "text", text)
    legend.draw([legend.entry(name, 0, 0.5, None, None)], 440, 300)
    assert places[order[0]] < places[order[1]]


def test_hebrew_runs_from_right_to_left() -> None:
    if not fonts._can_shape():
        pytest.skip("this Pillow has no Raqm")
    file = fonts.find("אב")
    assert file is not None
    basic = legend.ImageFont.truetype(file, 30, layout_engine=legend.ImageFont.Layout.BASIC)
    assert bytes(fonts.at(30, file).getmask("אב")) == bytes(basic.getmask("בא"))


def test_without_raqm_what_needs_it_is_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_can_shape", lambda: False)
    for name in ("إبريق", "אב", "हिन्दी"):
        assert legend.entry(name, 7, 0.5, None, None).name == "class 7"
    assert legend.entry("чайник", 7, 0.5, None, None).name == "чайник"


@pytest.mark.parametrize("vocabulary", ["voc20", "coco80", "coco171", "ade150"])
def test_classes_that_follow_each_other_differ_clearly(vocabulary: str) -> None:
    found = colours.class_colours(named(vocabulary).names)
    apart = distances(found)
    beside = np.array([apart[k, k + 1] for k in range(len(found) - 1)])
    assert beside.min() > 0.115  # 0.02 can just be seen; colours have whole numbers
    assert apart.min() > 0.03


def test_label_maps_and_overlays_have_the_same_colours() -> None:
    names = ["cat", "background", "dog", "cow"]
    labels = np.full((500, 500), -1)
    labels[:250, :250], labels[:250, 250:], labels[250:, :250] = 0, 1, 2
    rgb = np.full((500, 500, 3), 100, np.uint8)
    drawn = overlays.overlay(rgb, labels, names)
    shown = np.array(label_maps.image(labels, 4, names).convert("RGB"))
    for row, column in ((100, 100), (400, 100)):
        assert (drawn[row, column] == (100 + shown[row, column].astype(int)) // 2).all()
    assert (drawn[100, 400] == 100).all()  # background
    assert (drawn[400, 400] == 100).all()  # unlabelled
    assert shown[100, 400].tolist() == list(colours.BACKGROUND)
    assert shown[400, 400].tolist() == [0, 0, 0]


def test_no_class_of_a_label_map_is_black_and_unlabelled_is_like_none() -> None:
    names = [*named("coco171").names, "background"]
    table = label_maps.class_palette(names)
    lab = colours._to_oklab(table)
    assert np.linalg.norm(lab[: len(names)] - lab[255], axis=1).min() > 0.3
    assert table[255].tolist() == [0, 0, 0]


def test_background_stands_in_the_legend_without_a_colour() -> None:
    labels = np.zeros((450, 450), int)
    rgb = picture(450, 450)
    result = overlays.overlay(rgb, labels, ["Background", "cat"])
    entry = legend.entry("Background", 0, 1.0, None, None)
    assert (result[450:] == legend.draw([entry], 450, 450)).all()
    assert (result[:450] == rgb).all()  # nor is the image tinted


def test_the_legend_has_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    draw = legend.ImageDraw.ImageDraw.text

    def text(self, place, words, *args, **kwargs):  # type: ignore[no-untyped-def]
        texts.append(words)
        return draw(self, place, words, *args, **kwargs)

    monkeypatch.setattr(legend.ImageDraw.ImageDraw, "text", text)
    labels = blocks(100, 100, 2)
    overlays.overlay(picture(100, 100), labels, ["cat", "dog"], [0.5, None])
    assert texts.count("share") == texts.count("score") == 2  # of two columns
    texts.clear()
    overlays.overlay(picture(100, 100), labels, ["cat", "dog"])
    assert "share" in texts and "score" not in texts

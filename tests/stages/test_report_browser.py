"""The page of `report` in a real browser: switches switch, the slider slides, names stay text."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from ovtool.formats import coco, rle
from ovtool.stages import report

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH"
    ),
    pytest.mark.xdist_group("browser"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
NAME = "<script>document.title='taken'</script>.png"
ALPHA = """
const canvas = document.querySelectorAll(".stack canvas")[0];
if (!canvas || !canvas.width) return [0, 0, 0, 0];
return Array.from(canvas.getContext("2d").getImageData(arguments[0], 20, 1, 1).data);
"""


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two images, 64 x 40: the left half is cat with score 0.75, the right quarter dog."""
    folder = tmp_path_factory.mktemp("page")
    names = ("b.png", "a.png")
    annotations = []
    for image, name in enumerate(names, start=1):
        Image.fromarray(np.full((40, 64, 3), 120, np.uint8)).save(folder / name)
        for category, (first, last) in ((1, (0, 32)), (2, (48, 64))):
            mask = np.zeros((40, 64), bool)
            mask[:, first:last] = True
            annotations.append(
                coco.annotation(len(annotations) + 1, image, category, rle.encode(mask), score=0.75)
            )
    images = [coco.Image(k, name, 64, 40) for k, name in enumerate(names, start=1)]
    categories = [coco.Category(1, "cat"), coco.Category(2, NAME)]
    coco.write(coco.Dataset({}, images, annotations, categories), folder / "s.json")
    report.run([folder / "s.json"], images=folder, out=folder / "page.html")
    return folder / "page.html"


def until(condition):
    """Waits for what the page does in its own time, at most ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "the page did not do it within ten seconds"
        time.sleep(0.05)


@pytest.fixture
def opened(browser, page):
    browser.get(page.as_uri())
    until(lambda: browser.execute_script(ALPHA, 5)[3] > 0)
    return browser


def test_regions_are_drawn_and_switched_off_and_faded(opened):
    assert opened.execute_script(ALPHA, 40)[3] == 0  # no region
    assert opened.execute_script(ALPHA, 5)[3] == 153  # 0.6 of 255
    assert opened.execute_script(ALPHA, 60)[3] == 153
    cat, dog = opened.find_elements("css selector", "#legend input")
    cat.click()
    until(lambda: opened.execute_script(ALPHA, 5)[3] == 0)
    assert opened.execute_script(ALPHA, 60)[3] == 153
    opened.execute_script(
        "const o = document.getElementById('opacity'); o.value = 20; o.dispatchEvent(new Event('input'))"
    )
    until(lambda: opened.execute_script(ALPHA, 60)[3] == 51)
    opened.find_element("id", "all").click()
    until(lambda: opened.execute_script(ALPHA, 5)[3] == 51)


def test_a_pixel_tells_its_word_and_score(opened):
    chains = webdriver.ActionChains(opened)
    stack = opened.find_element("css selector", ".stack")
    chains.move_to_element_with_offset(stack, -stack.size["width"] // 4, 0).perform()
    hover = opened.find_element("css selector", ".hover")
    until(lambda: hover.text == "cat, score 0.75")


def test_names_are_text_and_nothing_goes_wrong(opened):
    labels = [label.text for label in opened.find_elements("css selector", "#legend label")]
    assert labels == ["cat", NAME]
    assert opened.title == "s.json"
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_images_are_sorted_and_searched_and_seen_whole(opened):
    def names():
        return [h2.text for h2 in opened.find_elements("css selector", "article h2") if h2.text]

    assert names() == ["b.png", "a.png"]
    opened.find_element("css selector", "#sort option[value=name]").click()
    until(lambda: names() == ["a.png", "b.png"])
    opened.find_element("id", "filter").send_keys("b.")
    until(lambda: names() == ["b.png"])
    assert opened.find_element("id", "summary").text == "1 of 2 images"
    opened.find_element("css selector", "article:not([hidden]) .stack").click()
    dialog = opened.find_element("id", "full")
    until(lambda: dialog.is_displayed() and dialog.find_elements("css selector", "canvas"))
    opened.find_element("id", "close").click()
    until(lambda: not dialog.is_displayed())


def test_full_view_says_in_words_what_it_shows_and_is_walked_through_by_keys(opened):
    opened.execute_script("document.querySelectorAll('button.stack')[0].focus()")

    def press(key):
        webdriver.ActionChains(opened).send_keys(getattr(webdriver.Keys, key)).perform()

    press("ENTER")
    dialog, name = opened.find_element("id", "full"), opened.find_element("id", "full-name")
    until(lambda: name.text == "b.png")
    items = dialog.find_elements("css selector", ".parts li")
    parts = [item.get_property("textContent") for item in items]
    assert parts == ["cat 50.0 %, score 0.75", f"{NAME} 25.0 %, score 0.75"]
    assert not dialog.find_elements(
        "css selector", "button.stack"
    )  # nothing there that does nothing
    for key, shown in (("RIGHT", "a.png"), ("RIGHT", "b.png"), ("LEFT", "a.png")):
        press(key)
        until(lambda shown=shown: name.text == shown)
    press("ESCAPE")
    until(lambda: not dialog.is_displayed())
    held = "return document.activeElement.closest('article')?.dataset.name"
    assert opened.execute_script(held) == "a.png"

"""Files that hypothesis damages, read by every reader that needs no large model; `scripts/measure/fuzz.py` has them all.

Hypothesis finds the smallest file that fails, and tries the same files each time.
"""

import json
import tempfile
from pathlib import Path

import pytest

from ovtool.errors import OvtoolError
from ovtool.formats import rle

hypothesis = pytest.importorskip("hypothesis")
import fuzz_readers  # noqa: E402  (after it is known that there is hypothesis)
from hypothesis import strategies as st  # noqa: E402

LARGE = (
    "CLIP weights",
    "model configurations",
    "proposers",
    "segmenters",
    "mask prompts",
    "PACL heads",
)
READERS = [reader for reader in fuzz_readers.READERS if reader.name not in LARGE]
few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged_json(draw, value):
    """JSON with one value of it replaced, left out or doubled."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 7)) == 0:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: draw(damaged_json(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(value) - 1))
        if draw(st.integers(0, 7)) == 0:
            return [*value, value[place]]
        return [*value[:place], draw(damaged_json(value[place])), *value[place + 1 :]]
    return draw(json_values)


@st.composite
def damaged_bytes(draw, data):
    """Bytes with a run of them replaced."""
    start = draw(st.integers(0, len(data)))
    stop = draw(st.integers(start, min(len(data), start + 300)))
    return data[:start] + draw(st.binary(max_size=40)) + data[stop:]


@st.composite
def damaged_file(draw, data, kind):
    """The content of a file of a kind of `fuzz_readers.Reader`, damaged."""
    if kind == "bytes" or draw(st.integers(0, 4)) == 0:
        return draw(damaged_bytes(data))
    if kind == "json":
        return json.dumps(draw(damaged_json(json.loads(data)))).encode()
    if kind == "lines":
        lines = data.splitlines()
        place = draw(st.integers(0, len(lines) - 1))
        lines[place] = json.dumps(draw(damaged_json(json.loads(lines[place])))).encode()
        return b"\n".join(lines) + b"\n"
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header and draw(st.booleans()):
        own = json.loads(header["__metadata__"]["ovtool"])
        header["__metadata__"]["ovtool"] = json.dumps(draw(damaged_json(own)))
    else:
        header = draw(damaged_json(header))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_is_read_or_refused_in_one_line(reader):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        reader.make(folder)
        good = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        paths = [path for path in good if reader.is_damaged(path)]

        @few
        @hypothesis.given(st.data())
        def read(data):
            path = data.draw(st.sampled_from(paths))
            content = data.draw(damaged_file(good[path], reader.kind))
            for file, whole in good.items():
                file.write_bytes(content if file == path else whole)
            try:
                reader.read(folder)
            except OvtoolError as error:
                assert "\n" not in str(error) and len(str(error)) < 2000

        read()


@few
@hypothesis.given(
    st.lists(st.text(st.characters(min_codepoint=40, max_codepoint=120), min_size=1), max_size=8)
)
def test_masks_are_judged_together_as_alone(texts):
    masks = [rle.Rle(size=[5, 7], counts=text) for text in [*texts, "S1"]]

    def is_sound(mask):
        try:
            return rle.compress(mask, 5, 7) == mask
        except OvtoolError:
            return False

    assert rle.are_sound(masks).tolist() == [is_sound(mask) for mask in masks]

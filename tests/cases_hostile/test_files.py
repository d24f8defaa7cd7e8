"""Files that attacks broke, each kind made anew: one line of ours, the right exit status, little time and memory."""

import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ovtool.errors import InputError, OvtoolError
from ovtool.formats import cams, coco, merge, parts, tensors
from ovtool.models import sources
from ovtool.training import checkpoints

SEGMENT = "segment images --classes cow -o o.json"


def bundled(name, change):
    """A bundled file of weights with another header and other tensors."""
    header, content = tensors.load(sources.bundled_folder() / f"{name}.safetensors")
    header, content = change(dict(header), dict(content))
    text = header if isinstance(header, str) else json.dumps(header)
    from safetensors.torch import save

    return save(content, metadata={"ovtool": text})


# --- safetensors ----------------------------------------------------------------------------------------
HEADERS = {
    "float8": (lambda h, c: (h, {k: v.to(torch.float8_e4m3fn) for k, v in c.items()}), "F8_E4M3"),
    "deep": (lambda h, c: (json.dumps(h)[:-1] + ', "x":' + "[" * 5000 + "]" * 5000 + "}", c), "damaged"),
    "no settings": (lambda h, c: ({k: v for k, v in h.items() if k != "settings"}, c), "header.settings is missing"),
    "settings are a number": (lambda h, c: ({**h, "settings": 4294967296}, c), "settings is 4294967296"),
    "the model is a number": (lambda h, c: ({**h, "model": -0.0}, c), "model is -0.0, not a text"),
    "an infinite scale": (lambda h, c: ({**h, "settings": {**h["settings"], "logit_scale": 1e999}}, c), "damaged"),
    "the scale is a text": (
        lambda h, c: ({**h, "settings": {**h["settings"], "logit_scale": "x"}}, c),
        "settings.logit_scale is 'x', not a number",
    ),
    "a size of 10^30": (lambda h, c: ({**h, "settings": {**h["settings"], "x": 10**30}}, c), "damaged"),
    "half a character": (lambda h, c: ({**h, "settings": {**h["settings"], "x": "\ud800"}}, c), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_a_head(desk, refused, name):
    change, reason = HEADERS[name]
    (desk / "x.safetensors").write_bytes(bundled("tiny_pacl", change))
    assert reason in refused(f"{SEGMENT} --method patch --pacl x.safetensors")
    assert not (desk / "o.json").exists()


@pytest.mark.parametrize("size", [10**9, 1 << 15])
@pytest.mark.parametrize("key", ["embed_dim", "num_queries", "depths"])
def test_sizes_of_a_proposer_take_no_memory(desk, refused, key, size):
    def change(header, content):
        settings = header["settings"]
        if key == "embed_dim":
            settings[key] = size
        elif key == "depths":
            settings["config"]["backbone_config"][key][0] = size
        else:
            settings["config"]["decoder_config"][key] = size
        return header, content

    (desk / "x.safetensors").write_bytes(bundled("tiny_proposer", change))
    assert "x.safetensors" in refused("propose images -o o.json --proposer x.safetensors")


MODEL = {
    "a deviation too many": ("preprocess_cfg", "std", [0.2, 0.2, 0.2, 0.2], "not three numbers"),
    "a mean of objects": ("preprocess_cfg", "mean", [{"x": 1}, 0.5, 0.5], "not three numbers"),
    "an infinite mean": ("preprocess_cfg", "mean", float("-inf"), "-Infinity"),
    "layers without end": ("vision_cfg", "layers", 10**9, "'vision_cfg.layers' is 1000000000"),
    "a width without end": ("vision_cfg", "width", 1 << 23, "describes"),
    "a size of 10^30": ("text_cfg", "vocab_size", 10**30, "64 bits"),
}


@pytest.mark.parametrize("name", MODEL)
def test_configurations_of_a_model(desk, refused, name):
    section, key, value, reason = MODEL[name]
    own = sources.bundled_folder()
    content = json.loads((own / "tiny.json").read_text())
    content = content if "model_cfg" in content else {"model_cfg": content}
    place = content if section == "preprocess_cfg" else content["model_cfg"]
    place[section] = {**place.get(section, {}), key: value}
    (desk / "m.json").write_text(json.dumps(content))
    (desk / "m.safetensors").write_bytes((own / "tiny.safetensors").read_bytes())
    assert reason in refused(f"{SEGMENT} --model m.safetensors", status=2)


def test_names_of_maps_lead_nowhere_else(desk, refused):
    image = cams.CamImage(1, "1.png", 64, 64, (1,))
    cams.write(
        desk / "x.safetensors",
        [image],
        [coco.Category(1, "cow")],
        {1: torch.rand(1, 4, 4)},
        {"method": "x"},
    )
    header, content = tensors.load(desk / "x.safetensors")
    header["settings"]["images"][0]["file_name"] = "../1.png"
    tensors.save(desk / "x.safetensors", content, header)
    line = refused("refine x.safetensors --images images --apply pamr -o o.json --overlays seen")
    assert "leaves the folder of the images" in line


# --- JSON -----------------------------------------------------------------------------------------------
VALUES = {
    "a width of 10^30": ("images", "width", 10**30, "beyond 64 bits"),
    "a width of 10^9": ("images", "width", 10**9, "more than any image has"),
    "an id of 2^63": ("images", "id", 2**63, "beyond 64 bits"),
    "an infinite id": ("images", "id", float("inf"), "Infinity"),
    "half a name": ("images", "file_name", "a\ud800.png", r"half a character (\ud800)"),
    "a name that colours": ("images", "file_name", "a\x1b[31m.png", "control character"),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_of_a_coco_file(spoiled, refused, name):
    section, key, value, reason = VALUES[name]
    source = spoiled(section, key, value)
    assert reason in refused(f"segment --coco {source} --images images --classes cow -o o.json")
    assert reason in refused(f"check {source}")


@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize("text", ["5", '"a"', "null", "[" * 200 + "]" * 200])
def test_standard_input_that_is_no_object(refused, monkeypatch, command, text):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert "standard input" in refused(f"{command} -")


@pytest.mark.parametrize(
    "counts", ["o", "0" * 50, "\ud800", [1, 2], [10**9], [-1, 64 * 64 + 1], None, 5]
)
def test_runs_of_masks_never_reach_the_decoder_unchecked(spoiled, refused, counts):
    source = spoiled("annotations", "segmentation", {"size": [64, 64], "counts": counts})
    refused(f"segment images --classes cow -o o.json --proposals {source}")
    refused(f"evaluate {source} --ground-truth {source}")


def test_escape_sequences_reach_no_terminal(does, spoiled, capsys):
    source = spoiled("categories", "name", "c\x1b[31mo\x9bw\u202e")
    from ovtool.cli.errors import run

    for command in ("info", "check", "info --json"):
        run([*command.split(), source])
        said = capsys.readouterr()
        assert not set("\x1b\x9b\u202e") & set(said.out + said.err)
    status, said = does("segment images -o o.json --classes", "cow\x1b[31m")
    assert status == 2 and "\x1b" not in said and "control character" in said
    status, said = does("segment images -o o.json --classes", "cow\udcff")
    assert status == 2 and "not UTF-8" in said


# --- parts and checkpoints ------------------------------------------------------------------------------
def make_parts(folder):
    """Two parts of a run."""
    from .conftest import mask

    store = parts.PartStore(folder, "d" * 16, {}, merge.preface({}, [coco.Category(1, "cow")]))
    entries = [{"category_id": 1, "segmentation": mask(), "score": 0.5}]
    for part in parts.cut(2, 1):
        store.write(part, [parts.image_record(f"{part.index}.png", 64, 64, entries)])


PARTS = {
    "no height": ('"height":64', '"height":0'),
    "a mask without height": ('"size":[64', '"size":[0'),
    "a list for a mask": ('"segmentation":{', '"segmentation":[{}],"x":{'),
    "an info that is a list": ('"info":{}', '"info":{"ovtool":[1,2]}'),
    "a preface that is a list": ('"preface":{', '"preface":[],"x":{'),
    "a size of 10^30": ('"width":64', '"width":' + "9" * 30),
    "an image that is a number": ('"image":{', '"image":5,"x":{'),
    "an end that is a text": ('{"end":1}', '{"end":"1"}'),
    "items without end": ('"items":2', '"items":' + str(10**18)),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_values_of_parts(desk, refused, name):
    before, after = PARTS[name]
    make_parts(desk / "p")
    path = desk / "p/part-00001.jsonl"
    text = re.sub(r',"sum":"\w+"', "", path.read_text())  # a digest that fits is easily made
    assert before in text
    path.write_text(text.replace(before, after))
    assert "p" in refused("check p")


def test_a_checkpoint_of_other_values_is_broken(desk):
    checkpoint = checkpoints.Checkpoint(desk / "x", "d")
    for value in ([1], {"digest": "d", "curve": 5}, {"digest": {"d": 1}}, 7):
        torch.save(value, desk / "x")
        with pytest.raises(OvtoolError, match="is broken or no checkpoint|training with other"):
            checkpoint.load()


# --- maps of other programs -----------------------------------------------------------------------------
def npz(path, content, compression=zipfile.ZIP_DEFLATED):
    """Writes an archive of one member."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(*content)


def array(values, dtype=np.float32):
    """The bytes of a `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype))
    return buffer.getvalue()


def claims(shape):
    """A `.npy` whose header claims a shape, without its values."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


GOOD = array([[0.0, 0.5], [1.0, 0.2]])
MAPS = {
    "not an archive": lambda p: p.write_bytes(b"PK\x03\x04" + bytes(80)),
    "a damaged member": lambda p: (npz(p, ("cow.npy", GOOD)), p.write_bytes(p.read_bytes()[:37] + b"\xff" * 8 + p.read_bytes()[45:])),
    "a wrong sum": lambda p: (
        npz(p, ("cow.npy", GOOD), zipfile.ZIP_STORED),
        p.write_bytes(p.read_bytes().replace(GOOD[-4:], b"abcd", 1)),
    ),
    "a text for a member": lambda p: npz(p, ("cow.txt", "hello")),
    "an open header": lambda p: npz(p, ("cow.npy", b'\x93NUMPY\x01\x00\x10\x00{"a":xxxxxxxxxxx')),
    "an empty map": lambda p: npz(p, ("cow.npy", array([[[]]]))),
    "objects": lambda p: npz(p, ("cow.npy", claims((1,)).replace(b"<f4", b"|O "))),
    "4 GiB": lambda p: npz(p, ("cow.npy", claims((1, 32768, 32768)) + bytes(1 << 20))),
    "10^30": lambda p: npz(p, ("cow.npy", claims((10**10, 10**10, 10**10)))),
    "a negative shape": lambda p: npz(p, ("cow.npy", claims((-1, 4)))),
    "NaN": lambda p: npz(p, ("cow.npy", array([[np.nan]]))),
    "beyond float32": lambda p: npz(p, ("cow.npy", array([[1e300]], np.float64))),
    "texts": lambda p: npz(p, ("cow.npy", array([["a"]], "U1"))),
    "a password": lambda p: (
        npz(p, ("cow.npy", GOOD)),
        p.write_bytes(p.read_bytes().replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")),
    ),
}  # fmt: skip


def test_broken_maps_among_good_ones(desk, does):
    (desk / "maps").mkdir()
    names = [*MAPS, "good"]
    for number, name in enumerate(names):
        draw = (desk / f"images/{number}.png").write_bytes
        draw((desk / "images/1.png").read_bytes())
        path = desk / f"maps/{number}.npz"
        MAPS.get(name, lambda p: npz(p, ("cow.npy", GOOD)))(path)
    (desk / "labels.txt").write_text("".join(f"{n}.png cow\n" for n in range(len(names))))
    status, said = does(
        "cam --method maps --from-maps maps --labels labels.txt --images images -o o.safetensors"
    )
    assert status == 3
    made = cams.read(desk / "o.safetensors")
    assert [image.file_name for image in made.images] == [f"{len(MAPS)}.png"]
    assert [failure["file_name"] for failure in made.failures] == [
        f"{n}.png" for n in range(len(MAPS))
    ]
    assert said.count("failed: ") == len(MAPS)


# --- shards and pipes -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "spec", ["x{0..999999999}.tar", "x{0..9999}{0..9999}.tar", "x" + "{a,b}" * 40 + ".tar"]
)
def test_lists_of_shards_are_bounded(refused, spec):
    pytest.importorskip("webdataset")
    assert "names more than 1,000,000 shards" in refused(
        f"train-pacl --captions {spec} -o o.safetensors", status=2
    )


def test_members_of_shards_are_bounded(desk):
    pytest.importorskip("webdataset")
    from ovtool.formats import shards

    with tarfile.open(desk / "x.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("0.jpg", "../../1.jpg"):
            for ending, data in ((".txt", b"a cow"), ("", b"not decoded here")):
                member = tarfile.TarInfo(name.replace(".jpg", ending) if ending else name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    data = (desk / "x.tar").read_bytes()
    left = shards.Left()
    assert [sample.caption for sample in shards.read("x.tar", left)] == ["a cow", "a cow"]
    large = tarfile.TarInfo("0.jpg")
    large.size = 1 << 40
    (desk / "x.tar").write_bytes(large.tobuf() + data)
    with pytest.raises(InputError, match="cannot read the shard"):
        list(shards.read("x.tar", left))
    assert not list(desk.parent.glob("1.*"))  # nothing is unpacked


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipes_in_a_folder_are_not_waited_for(desk, does, refused):
    for name in ("p.png", "q", "r.jpg"):
        os.mkfifo(desk / "images" / name)
    status, _ = does(SEGMENT)
    assert status == 0 and len(coco.read(desk / "o.json").images) == 2
    assert "is a pipe or a device" in refused("segment images/r.jpg --classes cow -o p.json")
    status, _ = does("info images")
    assert status == 0
    for command in ("segment images/p.png --classes cow -o p.json", "info images/p.png"):
        assert "is a pipe or a device" in refused(command)
    os.mkfifo(desk / "x.safetensors")
    for command in (
        "check x.safetensors",
        "info x.safetensors",
        "refine x.safetensors --images images --apply pamr -o p.json",
        f"{SEGMENT} --method patch --pacl x.safetensors --overwrite",
        "propose images --proposer x.safetensors -o p.json",
    ):
        assert "x.safetensors is a pipe or a device" in refused(command)


def test_links_that_lead_nowhere_are_passed_over(desk, does):
    (desk / "images/loop.png").symlink_to("loop.png")
    (desk / "images/gone.png").symlink_to("nothing.png")
    (desk / "images/up").symlink_to(desk / "images")
    status, _ = does(SEGMENT)
    assert status == 0 and len(coco.read(desk / "o.json").images) == 2
    assert does("check images")[0] == does("info images")[0] == 0


def test_a_closed_standard_input_is_one_line(desk, refused, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    for line in ("check -", "info -", "segment - --classes cow", "convert - --to coco -o o.json"):
        assert "standard input is closed" in refused(line)


def test_a_large_list_of_masks_is_not_held(desk, masks):
    from ovtool.formats import json_sections

    masks["annotations"] *= 2000
    for number, entry in enumerate(masks["annotations"]):
        masks["annotations"][number] = {**entry, "note": 'a "quoted" ]} \\', "id": number}
    path = Path(desk / "x.json")
    path.write_text(json.dumps(masks))
    assert json_sections.read(path, ("images",)) == {"images": masks["images"]}
    assert coco.read_images(path) == coco.read(path).images
    for cut in (path.read_text()[:-1], path.read_text() + "x", "[]", ""):
        path.write_text(cut)
        assert json_sections.read(path, ("images",)) is None


def test_masks_of_a_large_file_are_not_held(desk, masks, monkeypatch):
    from ovtool.formats import strict_json
    from ovtool.stages import check, info

    entry = masks["annotations"][0]
    masks["annotations"] = [{**entry, "id": number} for number in range(1, 3001)]
    (desk / "x.json").write_text(json.dumps(masks))
    loads, lengths = strict_json.loads, []
    monkeypatch.setattr(strict_json, "loads", lambda text: lengths.append(len(text)) or loads(text))
    assert check.run(desk / "x.json")[0]["defects"] == []
    assert (
        info.run(desk / "x.json")["annotations"]
        == len(coco.read(desk / "x.json").annotations)
        == 3000
    )
    assert max(lengths) < (desk / "x.json").stat().st_size / 10


def test_entries_of_a_long_list_are_those_of_the_file(desk, masks):
    from ovtool.formats import coco_checks, json_sections

    deep = {"id": 7, "extra": {"a": [{"b": [[[{"c": "]}"}]]]}]}}
    for listed in (
        [],
        [1, "a,]", None, -2.5e3, [], {}],
        [deep],
        [*masks["annotations"], deep] * 100,
    ):
        for text in (
            json.dumps({**masks, "annotations": listed}),
            json.dumps({"annotations": listed}, indent=3),
            json.dumps(listed),
        ):
            (desk / "x.json").write_text("\ufeff" + text)
            _, content = coco_checks.load_long(desk / "x.json")
            entries = (
                content if isinstance(content, json_sections.Entries) else content["annotations"]
            )
            assert list(entries) == listed == list(entries)  # as often as they are drawn
    for text, message in (
        (
            '{"annotations": [{"id": 1}, {"id": 2 "b": 1}]}',
            "not JSON: Expecting ',' delimiter at line 1",
        ),
        (
            '{"annotations": [{"id": 1}, {"id": 2, "b": [1e999]}]}',
            "annotations id 2: b[0] is Infinity",
        ),
        ('[{"id": 1}, {"score": NaN}]', "score is NaN"),
        ('{"annotations": [{"id": 1},]}', "not JSON"),
        ('{"annotations": {"id": 1}', "not JSON"),
    ):
        (desk / "x.json").write_text(text)
        with pytest.raises(InputError, match=re.escape(message)):
            _, content = coco_checks.load_long(desk / "x.json")
            list(content if isinstance(content, json_sections.Entries) else content["annotations"])
    (desk / "x.json").write_text(json.dumps({"annotations": [{"id": 1}] * 100}))
    _, content = coco_checks.load_long(desk / "x.json")
    (desk / "x.json").write_text(json.dumps({"annotations": [{"id": 123456}] * 100}))
    with pytest.raises(InputError, match="changed while it was read"):
        list(content["annotations"])

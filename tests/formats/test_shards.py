"""WebDataset shards: what they give, what they lack, and where they end."""

import io
import json
import tarfile

import pytest

from ovtool.errors import InputError, UsageError
from ovtool.formats import shards
from ovtool.formats.shards import Left


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr(shards._logger, "warning", lambda text, *values: said.append(text % values))
    return said


def write(path, members):
    """A tar of named members, each followed by the two blocks that end it."""
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def shard(tmp_path):
    members = []
    for number in range(5):
        members.append((f"{number:03d}.jpg", bytes([number]) * 2000))
        members.append((f"{number:03d}.txt", f"caption {number} ".encode()))
    return write(tmp_path / "00000.tar", members)


def test_samples_come_in_their_order(shard):
    left = Left()
    found = list(shards.read(str(shard), left))
    assert [one.caption for one in found] == [f"caption {n}" for n in range(5)]
    assert found[3].image == b"\x03" * 2000 and found[3].name == f"{shard}: 003"
    assert not left.samples and not left.cut
    assert shards.count([str(shard)]) == 5


def test_captions_may_be_in_a_record(tmp_path):
    said = json.dumps({"caption": " a cow ", "url": "x"}).encode()
    path = write(
        tmp_path / "a.tar",
        [("x/1.PNG", b"1"), ("x/1.json", said), ("y/1.webp", b"2"), ("y/1.txt", b"b")],
    )
    assert [one.caption for one in shards.read(str(path), Left())] == ["a cow", "b"]
    assert shards.count([str(path)]) == 2


def test_samples_without_image_or_caption_are_counted(tmp_path):
    members = [
        ("1.txt", b"no picture"),
        ("2.jpg", b"2"),
        ("3.jpg", b"3"),
        ("3.txt", b"  "),
        ("4.jpg", b"4"),
        ("4.json", b"[1]"),
        ("5.jpg", b"5"),
        ("5.json", b"{"),
        ("6.jpg", b"6"),
        ("6.txt", b"whole"),
    ]
    left = Left()
    found = list(shards.read(str(write(tmp_path / "a.tar", members)), left))
    assert [one.caption for one in found] == ["whole"]
    assert left.samples == {"no image": 1, "no caption": 4}


@pytest.mark.parametrize(
    "after", [700, -512, -200]
)  # in an image, between two members, in a header
def test_a_shard_that_ends_in_the_middle_gives_what_is_before(shard, warned, after):
    data = shard.read_bytes()
    shard.write_bytes(data[: data.index(b"\x02" * 2000) + after])
    left = Left()
    found = list(shards.read(str(shard), left))
    assert [one.caption for one in found] == ["caption 0", "caption 1"]
    assert list(left.cut) == [str(shard)]
    (said,) = warned
    assert said.startswith(f"{shard} ends in the middle (")
    assert said.endswith("its first 2 samples are used; fetch it again for the rest")
    list(shards.read(str(shard), left))
    assert len(warned) == 1  # once for each shard


def test_what_is_no_tar_file_stops(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(
        InputError, match=r"cannot read the shard .*a.tar .*; give one that is a tar file"
    ):
        list(shards.read(str(tmp_path / "a.tar"), Left()))


def test_a_url_that_does_not_answer_stops():
    with pytest.raises(InputError, match="cannot read the shard file:/nowhere/a.tar"):
        list(shards.read("file:/nowhere/a.tar", Left()))


def test_braces_are_expanded_and_files_must_be_there(shard, tmp_path):
    write(tmp_path / "00001.tar", [("1.jpg", b"1"), ("1.txt", b"1")])
    spec = str(tmp_path / "{00000..00001}.tar")
    assert shards.expand(spec) == [str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")]
    with pytest.raises(InputError, match=r"no such shard: .*00002.tar \(2 of the 4 that"):
        shards.expand(str(tmp_path / "{00000..00003}.tar"))
    assert shards.expand("https://example.org/{1..2}.tar") == [
        "https://example.org/1.tar",
        "https://example.org/2.tar",
    ]


@pytest.mark.parametrize(
    "spec, expected",
    [("x/{0..3}.tar", True), ("a.tar", True), ("a.tgz", True), ("coco", False), ("a.json", False)],
)
def test_what_names_shards(spec, expected):
    assert shards.is_shards(spec) is expected


@pytest.mark.parametrize(
    "url, expected",
    [("x/a.tar", True), ("/x/a:b.tar", True), ("https://x/a.tar", False), ("pipe:cat x", False)],
)
def test_what_is_local(url, expected):
    assert shards.is_local(url) is expected


def test_without_the_package_the_mend_is_named(shard, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(InputError, match=r"pip install 'ovtool\[shards\]'"):
        shards.expand(str(shard))


@pytest.mark.parametrize(
    "spec",
    [
        "pipe:touch RAN; cat a.tar", "pipe:touch RAN; cat {a,b}.tar", "{pipe:touch RAN;,x}a.tar",
        "{pip,x}e:touch RAN; cat a.tar", "a.tar::pipe:touch RAN; cat a.tar", "${hidden}:touch RAN; cat a.tar",
        "PIPE:touch RAN; cat a.tar", " pipe:touch RAN; cat a.tar", "pi\tpe:touch RAN; cat a.tar",
        "ais:touch RAN; cat a.tar", "htgs:x/a.tar", "http://x/a'; touch RAN; '.tar",
        "gs://x/$(touch RAN).tar", "https://x/`touch RAN`.tar", "http://[x/a.tar",
    ],
)  # fmt: skip
def test_an_address_that_runs_a_command_is_refused(shard, spec, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WDS_hidden", "pipe")
    shard.rename("a.tar")
    for use in (shards.expand, lambda url: list(shards.read(url, Left()))):
        if use is not shards.expand and any(sign in spec for sign in ("{", "::")):
            continue  # what `read` gets is expanded
        with pytest.raises(UsageError) as caught:
            use(spec)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not (tmp_path / "RAN").exists()


def test_addresses_that_are_opened():
    for url in ("https://x/a%27b.tar?key=1&b=2", "gs://x/a.tar", "hf://datasets/x/y/a.tar"):
        assert shards.expand(url) == [url]

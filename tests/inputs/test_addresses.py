"""Inputs and outputs on object stores, by fsspec's store in memory."""

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovtool
from ovtool.cli.errors import run
from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import coco, remote

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with two images, and a desk with an empty cache."""
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OVTOOL_MODEL", "tiny")
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    system = fsspec.filesystem("memory")
    system.store.clear()
    for seed, name in enumerate(("a.png", "deep/b.png")):
        system.pipe_file(f"/photos/{name}", png(seed))
    yield system
    system.store.clear()


def png(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((48, 40), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def below(folder: str) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
    }


def test_what_is_an_address():
    assert remote.address("s3://bucket/a b/c.png") == "s3://bucket/a b/c.png"
    assert remote.address(Path("hf://datasets/x")) == "hf://datasets/x"  # a slash is lost in a path
    for name in (
        "a/b.png",
        "C:/x.png",
        "s3:",
        "file:///etc/x",
        "pipe://ls",
        "zip://a::s3://b/c",
        5,
        None,
    ):
        assert remote.address(name) is None


def test_a_folder_is_fetched_once_and_what_has_changed_again(store, monkeypatch):
    fetched = []
    fetch = remote._fetch
    monkeypatch.setattr(remote, "_fetch", lambda *a: (fetched.append(a[1]), fetch(*a)))
    folder = remote.local("memory://photos")
    assert folder.name == "photos" and below(folder) == {"a.png", "deep/b.png"}
    assert (folder / "a.png").read_bytes() == png(0)
    assert remote.local("memory://photos") == folder and len(fetched) == 2
    store.pipe_file("/photos/a.png", png(5))
    store.rm("/photos/deep/b.png")
    store.pipe_file("/photos/c.png", png(6))
    remote.local("memory://photos")
    assert fetched[2:] == ["/photos/a.png", "/photos/c.png"]
    assert below(folder) == {"a.png", "c.png"} and (folder / "a.png").read_bytes() == png(5)
    (folder / "c.png").unlink()
    assert remote.local("memory://photos/").exists() and (folder / "a.png").exists()
    assert (remote.local("memory://photos") / "c.png").exists()


def test_a_fetch_that_is_cut_off_leaves_no_half_of_a_file(store, monkeypatch):
    def cut(source, target, size):
        target.write(source.read(10))
        raise OSError("the network is away")

    with monkeypatch.context() as patch:
        patch.setattr(remote.shutil, "copyfileobj", cut)
        with pytest.raises(InputError, match="cannot fetch memory://photos: the network is away"):
            remote.local("memory://photos")
    assert not below(os.environ["OVTOOL_CACHE"] + "/remote") - {
        f.name for f in Path(os.environ["OVTOOL_CACHE"], "remote").glob("*.json")
    }
    assert below(remote.local("memory://photos")) == {"a.png", "deep/b.png"}


def test_names_that_leave_the_cache_are_refused(store):
    store.pipe_file("/photos/../../../evil.png", b"x")
    store.store["/photos/../evil.png"] = store.store[next(k for k in store.store if "evil" in k)]
    with pytest.raises(InputError, match="cannot fetch memory://photos: .* is no path of a file"):
        remote.local("memory://photos")
    assert not [p for p in Path(os.environ["OVTOOL_CACHE"]).parent.rglob("evil.png")]


def test_a_run_from_a_store_to_a_store_is_that_of_files(store, capsys):
    folder = remote.local("memory://photos")
    line = [
        "segment",
        str(folder),
        "--classes",
        "cow,apple",
        "-o",
        "here.json",
        "--overlays",
        "seen",
    ]
    assert run(line) == 0
    assert (
        run(
            [
                "segment",
                "memory://photos",
                "--classes",
                "cow,apple",
                "-o",
                "memory://out/o.json",
                "--overlays",
                "memory://out/seen",
            ]
        )
        == 0
    )
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == ["written to memory://out/o.json", "written to memory://out/seen, 2 files"]
    assert store.cat_file("/out/o.json") == Path("here.json").read_bytes()
    assert {name.removeprefix("/out/seen/") for name in store.find("/out/seen")} == below("seen")
    assert not below(os.environ["OVTOOL_CACHE"] + "/made")
    assert run(["check", "memory://out/o.json"]) == 0
    store.pipe_file("/truth/t.json", Path("here.json").read_bytes())
    assert (
        run(
            [
                "evaluate",
                "memory://out/o.json",
                "--ground-truth",
                "memory://truth/t.json",
                "-o",
                "memory://out/scores.json",
            ]
        )
        == 0
    )
    assert json.loads(store.cat_file("/out/scores.json"))["miou"] == 1


def test_an_output_that_is_there_is_refused(store, capsys):
    store.pipe_file("/out/o.json", b"mine")
    line = ["propose", "memory://photos", "--proposer", "regions", "-o", "memory://out/o.json"]
    assert (
        run(line) == 1
        and "memory://out/o.json exists; replace it with --overwrite" in capsys.readouterr().err
    )
    assert run([*line, "--update"]) == 2 and "give --overwrite" in capsys.readouterr().err
    assert store.cat_file("/out/o.json") == b"mine"
    assert run([*line, "--overwrite"]) == 0
    assert json.loads(store.cat_file("/out/o.json"))["images"]


def test_what_cannot_be_delivered_is_kept(store, monkeypatch, capsys):
    line = ["propose", "memory://photos", "--proposer", "regions", "-o", "memory://out/o.json"]

    def refuse(*_, **__):
        raise PermissionError("no access to the bucket")

    monkeypatch.setattr(type(store), "put_file", refuse)
    assert run(line) == 1
    said = capsys.readouterr().err
    assert "cannot write memory://out/o.json: no access to the bucket; it is kept as " in said
    assert coco.read(said.strip().splitlines()[-1].rpartition("kept as ")[2]).images


def test_some_failed_images_do_not_keep_the_output_here(store):
    store.pipe_file("/photos/broken.png", b"\x89PNG")
    line = ["propose", "memory://photos", "--proposer", "regions", "-o", "memory://out/o.json"]
    assert run(line) == 3
    assert len(json.loads(store.cat_file("/out/o.json"))["info"]["ovtool"]["failures"]) == 1


def test_parts_of_a_run_that_was_cut_off_stay_here_and_are_gone_on_with(store, monkeypatch):
    from ovtool.formats.parts import PartStore

    line = [
        "propose",
        "memory://photos",
        "--proposer",
        "regions",
        "-o",
        "memory://out/o.json",
        "--part-size",
        "1",
    ]
    write = PartStore.write

    def cut(self, part, *rest):
        if part.index == 1:
            raise KeyboardInterrupt
        write(self, part, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write", cut)
        assert run(line) == 130
    assert not store.exists("/out/o.json")
    made = Path(os.environ["OVTOOL_CACHE"], "made")
    assert [name for name in below(made) if name.endswith("part-00000.jsonl")]
    assert run([*line, "--resume"]) == 0
    assert store.exists("/out/o.json") and not below(made)


def test_python_takes_addresses_too(store):
    result = ovtool.info("memory://photos")
    assert result["images"] == 2
    outcome = ovtool.propose(
        ["memory://photos/a.png"], ovtool.Propose(proposer="regions"), out="memory://out/p.json"
    )
    assert [image.file_name for image in outcome.dataset.images] == ["a.png"]
    assert store.exists("/out/p.json")
    with pytest.raises(OutputExistsError):
        ovtool.propose(
            ["memory://photos/a.png"], ovtool.Propose(proposer="regions"), out="memory://out/p.json"
        )
    with pytest.raises(InputError, match="no such file or folder: memory://nowhere"):
        ovtool.info("memory://nowhere/x.json")


def test_names_on_stdin_may_be_addresses(store, monkeypatch):
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("memory://photos/a.png\nmemory://photos/deep/b.png\n")
    )
    assert run(["propose", "-", "--proposer", "regions", "-o", "o.json"]) == 0
    assert {image.file_name for image in coco.read("o.json").images} == {"a.png", "b.png"}


def test_shards_are_fetched_one_by_one(store):
    pytest.importorskip("webdataset")
    from ovtool.formats import shards

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("0.png", png(0)), ("0.txt", b"a cow")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    store.pipe_file("/data/0.tar", buffer.getvalue())
    urls = shards.expand("memory://data/{0..1}.tar")
    assert urls == ["memory://data/0.tar", "memory://data/1.tar"]
    left = shards.Left()
    assert [sample.caption for sample in shards.read(urls[0], left)] == ["a cow"]
    with pytest.raises(InputError, match="no such file or folder: memory://data/1.tar"):
        list(shards.read(urls[1], left))


@pytest.mark.parametrize("url", ["s3://x/a.tar", "gs://x/a.tar", "hf://x/a.tar"])
def test_shards_of_stores_run_no_command_of_webdataset(store, monkeypatch, url):
    pytest.importorskip("webdataset")
    from ovtool.formats import shards

    def refuse(name):
        raise InputError(f"{name} is asked of fsspec")

    monkeypatch.setattr(remote, "local", refuse)
    with pytest.raises(InputError, match="is asked of fsspec"):
        list(shards.read(url, shards.Left()))


def test_a_package_that_is_missing_is_named(store, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **options):
        if name.partition(".")[0] in ("s3fs", "fsspec"):
            raise ImportError(f"No module named '{name}'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'ovtool\[remote\]'"):
        remote.local("s3://bucket/x.json")


def test_a_real_client_of_s3_fetches_and_writes(store, monkeypatch):
    for package in ("moto", "flask", "s3fs"):
        pytest.importorskip(package)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_DEFAULT_REGION", "us-east-1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        bucket = fsspec.filesystem("s3", skip_instance_cache=True)
        bucket.mkdir("mine")
        bucket.pipe_file("mine/photos/deep/a.png", png(0))
        line = [
            "propose",
            "s3://mine/photos",
            "--proposer",
            "regions",
            "-o",
            "s3://mine/out/o.json",
        ]
        assert run(line) == 0 and run(line) == 1
        assert run([*line, "--overwrite"]) == 0
        made = json.loads(bucket.cat_file("mine/out/o.json"))
        assert [image["file_name"] for image in made["images"]] == ["deep/a.png"]
        bucket.pipe_file("mine/photos/deep/a.png", png(1))
        assert (remote.local("s3://mine/photos/") / "deep/a.png").read_bytes() == png(1)
        assert run(["info", "s3://nowhere/x.json"]) == 1
    finally:
        server.stop()


class Bucket(fsspec.AbstractFileSystem):
    """A store as the clients of others show theirs: no slash before a bucket, folders that are only names of objects,
    a mark of a folder as an empty object, and a word of its own for what changes with an object."""

    cachable = False
    objects: dict[str, bytes] = {}
    mark = ""  # the key of that word

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path).rstrip("/")
        below = {}
        for name, content in self.objects.items():
            if name == path:
                below[name] = self._object(name, content)
            elif name.startswith(f"{path}/"):
                first = f"{path}/{name[len(path) + 1 :].partition('/')[0]}"
                is_object = first == name
                below[first] = (
                    self._object(name, content)
                    if is_object
                    else {"name": first, "size": 0, "type": "directory"}
                )
        if not below:
            raise FileNotFoundError(path)
        return [*below.values()] if detail else [*below]

    def _object(self, name, content):
        own = {"name": name, "size": len(content), "type": "file", "storageClass": "STANDARD"}
        return {**own, self.mark: hashlib.md5(content).hexdigest()}

    def _open(self, path, mode="rb", **_):
        assert mode == "rb"
        return io.BytesIO(self.objects[path])

    def put_file(self, lpath, rpath, **_):
        self.objects[self._strip_protocol(rpath)] = Path(lpath).read_bytes()


@pytest.mark.parametrize(
    ("scheme", "mark", "place"),
    [
        ("s3", "ETag", "bucket/photos"),
        ("gs", "etag", "bucket/photos"),
        ("hf", "blob_id", "datasets/someone/photos/data"),
        ("az", "etag", "container/photos"),
    ],
)
def test_the_stores_of_others(store, monkeypatch, capsys, scheme, mark, place):
    """By a client of each scheme that stands in for s3fs, gcsfs, huggingface_hub and adlfs."""
    contents = {f"{place}/a.png": png(0), f"{place}/deep/b.png": png(1), f"{place}/deep/": b""}
    opened = []

    class Client(Bucket):
        protocol, objects = scheme, contents

        def __init__(self, **options):
            super().__init__(**options)
            opened.append(options)

    Client.mark = mark
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, scheme, Client)
    folder = remote.local(f"{scheme}://{place}")
    assert below(folder) == {"a.png", "deep/b.png"}
    contents[f"{place}/a.png"] = png(0)[:-1] + b"x"  # of the same length
    remote.local(f"{scheme}://{place}")
    assert (folder / "a.png").read_bytes() == contents[f"{place}/a.png"]
    assert {options["use_listings_cache"] for options in opened} == {False}
    out = f"{scheme}://{place.partition('/')[0]}/made/o.json"
    line = ["propose", f"{scheme}://{place}/deep", "--proposer", "regions", "-o", out]
    assert run(line) == 0 and run(["check", out]) == 0
    assert "b.png" in contents[out.partition("://")[2]].decode()
    assert run(line) == 1
    assert f"{out} exists; replace it with --overwrite" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"no such file or folder: {scheme}://{place}/none"):
        remote.local(f"{scheme}://{place}/none")

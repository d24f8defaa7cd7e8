"""Files of class activation maps."""

import numpy as np
import pytest
import torch

from ovtool.errors import InputError, MismatchError
from ovtool.formats import cams, coco, given_maps, tensors

CATEGORIES = [coco.Category(3, "cow"), coco.Category(7, "boat", synonyms=("ship",))]
IMAGES = [cams.CamImage(1, "a.png", 40, 64, (3, 7)), cams.CamImage(2, "b/c.jpg", 30, 30, (7,))]


def maps():
    return {1: torch.rand(2, 4, 5), 2: torch.rand(1, 3, 3)}


def test_what_is_written_is_read(tmp_path):
    given, path = maps(), tmp_path / "x.safetensors"
    settings = {"method": "gradcam"}
    written = cams.write(path, IMAGES, CATEGORIES, given, settings, model="m", fingerprint="f")
    found = cams.read(path)
    assert found.images == tuple(IMAGES) and found.categories == tuple(CATEGORIES)
    assert found.settings == settings and (found.model, found.fingerprint) == ("m", "f")
    assert torch.equal(found.of(1), given[1].half().float()) and found.of(2).dtype == torch.float32
    assert found.digest == written.digest
    assert tensors.names(path)["cam/1"] == ("F16", (2, 4, 5))
    other = cams.write(path, IMAGES, CATEGORIES, {**given, 2: given[2] / 2}, settings)
    assert other.digest != found.digest and cams.read(path).model is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({1: torch.rand(1, 4, 5)}, r"a.png have the shape \[1, 4, 5\] for 2 categories"),
        ({1: torch.full((2, 4, 5), float("nan"))}, "a.png hold numbers that are not finite"),
        ({1: torch.full((2, 4, 5), 1.5)}, "a.png leave the range from 0 to 1"),
        ({9: torch.rand(1, 2, 2)}, "the map cam/9 belongs to no image"),
    ],
)
def test_maps_that_do_not_fit(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        cams.write(tmp_path / "x.safetensors", IMAGES, CATEGORIES, maps() | change, {})


def test_missing_maps_unknown_categories_and_doubled_ids(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="the maps of b/c.jpg are missing"):
        cams.write(path, IMAGES, CATEGORIES, {1: torch.rand(2, 4, 5)}, {})
    with pytest.raises(InputError, match="no category has the id 7"):
        cams.write(path, IMAGES, CATEGORIES[:1], maps(), {})
    with pytest.raises(InputError, match="two images have the id 1"):
        cams.write(path, [IMAGES[0], IMAGES[0]], CATEGORIES, {1: torch.rand(2, 4, 5)}, {})
    assert not path.exists()


def test_files_that_are_none(tmp_path):
    tensors.save(tmp_path / "p.safetensors", {"x": torch.ones(1)}, {"kind": "pacl"})
    with pytest.raises(
        MismatchError,
        match="holds a PACL head, which ovtool segment --pacl reads; needed here: class activation maps",
    ):
        cams.read(tmp_path / "p.safetensors")
    tensors.save(tmp_path / "e.safetensors", {"x": torch.ones(1)}, {"kind": "cams"})
    with pytest.raises(InputError, match="settings.images is missing; make the file again"):
        cams.read(tmp_path / "e.safetensors")


def test_other_images_or_sizes(tmp_path):
    found = cams.write(tmp_path / "x.safetensors", IMAGES, CATEGORIES, maps(), {})
    sizes = {"a.png": (40, 64), "b/c.jpg": (30, 30), "more.png": (1, 1)}
    cams.check_images(found, sizes, "x")
    with pytest.raises(
        MismatchError, match="a.png at 64 x 40 pixels, but the image here has 40 x 64"
    ):
        cams.check_images(found, sizes | {"a.png": (64, 40)}, "x")
    with pytest.raises(MismatchError, match="b/c.jpg, which is none of the images here"):
        cams.check_images(found, {"a.png": (40, 64)}, "x")


# --- anybody's maps --------------------------------------------------------------------------------


def test_each_form_of_given_maps(tmp_path):
    both = np.random.default_rng(0).random((2, 4, 5)).astype(np.float32)
    np.save(tmp_path / "own.npy", both)
    np.savez(tmp_path / "named.npz", cow=both[0], boat=both[1])
    np.savez(tmp_path / "numbered.npz", **{"0": both[0], "1": both[1]})
    tensors.save(tmp_path / "t.safetensors", {"maps": torch.from_numpy(both)}, {"kind": "x"})
    for name in ("own.npy", "named.npz", "numbered.npz", "t.safetensors"):
        found = given_maps.read(tmp_path / name, (3, 7), CATEGORIES)
        assert torch.equal(found, torch.from_numpy(both)), name
    assert torch.equal(given_maps.read(tmp_path / "own.npy", (7,), CATEGORIES)[0],
                       torch.from_numpy(both[1]))  # fmt: skip


def test_what_leaves_the_range_is_brought_to_it(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[[-1.0, 3.0]], [[0.2, 0.4]]]))
    found = given_maps.read(tmp_path / "x.npy", (3, 7), CATEGORIES)
    assert torch.allclose(found, torch.tensor([[[0.0, 1.0]], [[0.2, 0.4]]]))
    np.save(tmp_path / "c.npy", np.full((2, 1, 2), 5.0))
    assert not given_maps.read(tmp_path / "c.npy", (3, 7), CATEGORIES).any()  # a constant map


def test_a_pickled_dictionary_is_refused_with_the_line_that_converts_it(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, {0: np.ones((2, 2)), 1: np.zeros((2, 2))}, allow_pickle=True)
    with pytest.raises(InputError, match="x.npy is pickled, and nothing is unpickled") as caught:
        given_maps.read(path, (3, 7), CATEGORIES)
    line = str(caught.value).split("convert it with: ")[1]
    assert line.startswith('python -c "')
    exec(line.removeprefix('python -c "').removesuffix('"'), {})
    found = given_maps.read(tmp_path / "x.npz", (3, 7), CATEGORIES)
    assert found[0].all() and not found[1].any()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (np.ones((3, 2, 2)), "has 3 maps, but its image has 1 labels and there are 2 classes"),
        (np.full((1, 2, 2), np.nan), "holds numbers that are not finite"),
        (np.ones((2, 2)), "has no map .* named 'boat' or 1"),
        (np.array(["a"]), "holds no maps of numbers"),
    ],
)
def test_given_maps_that_do_not_fit(tmp_path, arrays, said):
    np.save(tmp_path / "x.npy", arrays)
    with pytest.raises(InputError, match=said):
        given_maps.read(tmp_path / "x.npy", (7,), CATEGORIES)


def test_broken_files_and_missing_ones(tmp_path):
    for name in ("x.npy", "x.npz", "x.safetensors"):
        (tmp_path / name).write_bytes(b"\x93NUMPY\x01")
        with pytest.raises(InputError, match="is broken"):
            given_maps.read(tmp_path / name, (7,), CATEGORIES)
    with pytest.raises(InputError, match="could both be meant by 'deep/x.jpg'"):
        given_maps.find(tmp_path, ["deep/x.jpg", "y.jpg"])
    for name in ("x.npy", "x.npz"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="no maps for 1 of the 2 images, such as y.safetensors"):
        given_maps.find(tmp_path, ["deep/x.jpg", "y.jpg"])
    with pytest.raises(InputError, match="no such folder of maps"):
        given_maps.find(tmp_path / "gone", [])


def test_maps_are_read_one_by_one_from_the_file_that_was_checked(tmp_path):
    path = tmp_path / "x.safetensors"
    images = [cams.CamImage(id, f"{id}.png", 4, 8, (1,)) for id in (10, 9)]
    values = {id: torch.rand(1, 2, 4).half() for id in (10, 9)}
    written = cams.write(path, images, [coco.Category(1, "cow")], values, {"method": "given"})
    read = cams.read(path)
    assert isinstance(read.maps, tensors.Anew) and read.digest == written.digest
    assert all(torch.equal(read.of(id), own.float()) for id, own in values.items())
    cams.write(path, images, [coco.Category(1, "cow")], values, {"method": "anew"})
    with pytest.raises(InputError, match="has been changed while it was read"):
        read.of(9)

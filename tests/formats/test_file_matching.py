"""Which file belongs to which: relative paths first, and nothing guessed where two could be meant."""

import numpy as np
import pytest
from PIL import Image

from ovtool.errors import InputError
from ovtool.formats import file_matching, given_maps, label_maps, labelled
from ovtool.formats.file_matching import Names


def match(wanted, there, rungs=file_matching.RUNGS, bare=False):
    return file_matching.match(Names("W", wanted, bare), Names("T", there), rungs)


@pytest.mark.parametrize(
    ("wanted", "there", "pairs"),
    [
        (["a.jpg"], ["a.jpg", "a.png"], {"a.jpg": "a.jpg"}),
        (["x/a.jpg", "y/a.jpg"], ["y/a.png", "x/a.png"],
         {"x/a.jpg": "x/a.png", "y/a.jpg": "y/a.png"}),
        (["x/a.jpg"], ["y/a.png"], {}),
        (["x/a.jpg"], ["xx/a.png"], {}),
        (["x/a.jpg"], ["a.png"], {"x/a.jpg": "a.png"}),
        (["a.jpg"], ["x/a.png"], {"a.jpg": "x/a.png"}),
        # the flat file is that of the flat name, and is not given again
        (["a.jpg", "x/a.jpg"], ["a.png"], {"a.jpg": "a.png"}),
        (["a.jpg", "x/a.jpg"], ["a.png", "x/a.png"], {"a.jpg": "a.png", "x/a.jpg": "x/a.png"}),
        (["IMG.1.jpg", "IMG.2.jpg"], ["IMG.2.png"], {"IMG.2.jpg": "IMG.2.png"}),
    ],
)  # fmt: skip
def test_pairs(wanted, there, pairs):
    assert match(wanted, there) == pairs


def test_the_forms_of_unicode_are_one(tmp_path):
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    assert match([composed, "b.jpg"], ["b.jpg", apart]) == {composed: apart, "b.jpg": "b.jpg"}
    assert match([apart], [apart, composed]) == {apart: apart}
    assert match(["x/" + composed], [apart.replace("jpg", "png")]) == {
        "x/" + composed: apart.replace("jpg", "png")
    }
    write_images(tmp_path, apart)
    assert file_matching.place(tmp_path, composed) == tmp_path / apart
    assert file_matching.place(tmp_path, "cafe.jpg") is None


def test_names_without_endings_may_have_dots():
    assert match(["IMG.1"], ["IMG.jpg", "IMG.1.jpg"], bare=True) == {"IMG.1": "IMG.1.jpg"}


@pytest.mark.parametrize(
    ("wanted", "there", "said"),
    [
        (["s0"], ["s0.jpg", "s0.png"], "'s0.jpg' and 's0.png' could both be meant by 's0' of W"),
        (["a"], ["x/a.jpg", "y/a.jpg"], "'x/a.jpg' and 'y/a.jpg' could both be meant"),
        (["x/a", "y/a"], ["a.npy"], "'x/a' and 'y/a' cannot be told apart"),
    ],
)
def test_nothing_is_guessed(wanted, there, said):
    with pytest.raises(InputError, match=said):
        match(wanted, there, bare=True)


def write_maps(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        label_maps.write(path, np.zeros((4, 6), np.int32), 2)
    label_maps.write_classes(folder / "classes.txt", ["a", "b"])
    return labelled.open_source(str(folder))


def write_images(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(path)


def test_a_label_map_is_never_taken_for_an_image(tmp_path):
    write_images(tmp_path, "s0.jpg", "deep/s1.jpg")
    found = write_maps(tmp_path, "s0.png", "deep/s1.png")
    items = labelled.images_of(found, tmp_path)
    assert {name: item.name for name, item in items.items()} == {
        "s0": "s0.jpg",
        "deep/s1": "deep/s1.jpg",
    }
    (tmp_path / "s0.jpg").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the 2 images .*the first is s0"):
        labelled.images_of(found, tmp_path)


@pytest.mark.parametrize(
    ("wanted", "there", "pairs"),
    [
        (
            ["x/a_1_L", "b_2_L"],
            ["x/a_1.png", "b_2.png"],
            {"x/a_1_L": "x/a_1.png", "b_2_L": "b_2.png"},
        ),
        (["a", "b"], ["a.mask.png", "b.mask.png"], {"a": "a.mask.png", "b": "b.mask.png"}),
        (["a_L", "b_P"], ["a.png", "b.png"], {}),  # not one ending
        (["a_L"], ["b.png"], {}),
        (["amask"], ["a.png"], {}),  # no sign between the words
    ],
)
def test_one_ending_that_all_label_maps_add(wanted, there, pairs, caplog):
    assert match(wanted, there, file_matching.ADDED, bare=True) == pairs
    assert ("added" in caplog.text) == bool(pairs)


def test_label_maps_that_add_an_ending_find_their_images(tmp_path):
    found = write_maps(tmp_path / "labels", "s0_L.png", "s1_L.png")
    write_images(tmp_path / "images", "s0.jpg", "s1.jpg")
    items = labelled.images_of(found, tmp_path / "images")
    assert {name: item.name for name, item in items.items()} == {"s0_L": "s0.jpg", "s1_L": "s1.jpg"}


def test_two_images_of_one_stem_are_refused(tmp_path):
    found = write_maps(tmp_path / "maps", "s0.png")
    write_images(tmp_path / "photos", "s0.jpg", "s0.png")
    with pytest.raises(InputError, match="could both be meant by 's0'"):
        labelled.images_of(found, tmp_path / "photos")


def test_two_label_maps_of_one_stem_are_refused(tmp_path):
    with pytest.raises(InputError, match="are both the label map of 's0'"):
        write_maps(tmp_path, "s0.png", "s0.PNG")


def test_given_maps_of_one_folder_are_not_those_of_another(tmp_path):
    for name in ("x/a.npy", "b.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert given_maps.find(tmp_path, ["x/a.jpg", "y/b.jpg"]) == {
        "x/a.jpg": tmp_path / "x/a.npy",
        "y/b.jpg": tmp_path / "b.npz",
    }
    with pytest.raises(InputError, match="no maps for 1 of the 1 images, such as .* for y/a.jpg"):
        given_maps.find(tmp_path, ["y/a.jpg"])
    with pytest.raises(InputError, match="cannot be told apart"):
        given_maps.find(tmp_path, ["x/b.jpg", "y/b.jpg"])
    (tmp_path / "x" / "a.npz").touch()
    with pytest.raises(InputError, match="'x/a.npy' and 'x/a.npz' could both be meant"):
        given_maps.find(tmp_path, ["x/a.jpg"])


def test_a_name_written_as_in_an_address_is_that_of_its_file_and_stays_in_its_folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("images/my image.jpg", "secret.jpg", "images/50%20off.jpg", "images/50 off.jpg"):
        (tmp_path / name).touch()
    folder = tmp_path / "images"
    assert file_matching.path_of(folder, "my%20image.jpg") == folder / "my image.jpg"
    assert file_matching.path_of(folder, "50%20off.jpg") == folder / "50%20off.jpg"  # as it is
    for name in ("%2e%2e/secret.jpg", "..%2Fsecret.jpg", "my%00image.jpg", "gone%20.jpg"):
        assert file_matching.place(folder, name) is None
        assert file_matching.path_of(folder, name) == folder / name


def test_a_stem_of_what_names_no_file():
    assert [file_matching.image_stem(name) for name in ("a/b.tar.gz", "a", "", "/", ".")] == [
        *("a/b.tar", "a", "", "/", ".")
    ]

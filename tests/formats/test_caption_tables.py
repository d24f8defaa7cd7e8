"""Tables of captions as Flickr8k, Flickr30k, spreadsheets and open_clip have them."""

import os

import pytest

from ovtool.errors import InputError
from ovtool.formats import captions

TABLES = {
    "captions.txt": "image,caption\na.jpg,A cow on grass .\na.jpg,\"A cow, brown , runs .\"\nb.jpg,A \"big\" boat\n",
    "Flickr8k.token.txt": "a.jpg#0\tA cow on grass .\na.jpg#1\tA cow, brown , runs .\nb.jpg#0\tA \"big\" boat\n",
    "results.csv": "image_name| comment_number| comment\na.jpg| 0| A cow on grass .\na.jpg| 1| A cow, brown , runs .\nb.jpg| 4   A \"big\" boat\n",
    "excel.csv": "\ufefffile_name,split,Text\r\na.jpg,train,A cow on grass .\r\na.jpg,train,\"A cow, brown , runs .\"\r\nb.jpg,val,\"A \"\"big\"\" boat\"\r\n",
    "open_clip.csv": "filepath\ttitle\na.jpg\tA cow on grass .\na.jpg\tA cow, brown , runs .\nb.jpg\t\"A \"\"big\"\" boat\"\n",
    "bare.csv": "a.jpg,A cow on grass .\n\na.jpg,A cow, brown , runs .\nb.jpg,\"A \"\"big\"\" boat\"\n",
    "turned.csv": "caption,image\nA cow on grass .,a.jpg\n\"A cow, brown , runs .\",a.jpg\n\"A \"\"big\"\" boat\",b.jpg\n",
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_the_same_captions_in_every_form(name, tmp_path):
    (tmp_path / name).write_bytes(TABLES[name].encode())
    read = captions.read(tmp_path / name)
    assert [(image.id, image.file_name) for image in read.images] == [(1, "a.jpg"), (2, "b.jpg")]
    spoken = [[(own.id, own.text) for own in image.captions] for image in read.images]
    cow = [(1, "A cow on grass ."), (2, "A cow, brown , runs .")]
    assert spoken == [cow, [(3, 'A "big" boat')]]


def test_empty_captions_and_folders(tmp_path):
    (tmp_path / "c.csv").write_text('image,caption\nx\\a.jpg,\nx\\b.jpg,"a cow\non grass"\n')
    read = captions.read(tmp_path / "c.csv")
    assert [(image.file_name, len(image.captions)) for image in read.images] == [
        ("x/a.jpg", 0),
        ("x/b.jpg", 1),
    ]
    assert read.images[1].captions[0].text == "a cow\non grass"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\na.jpg,cow\n", "its first row is 'image, label'; write image,caption above"),
        ("a cow on grass\n", "is no table of captions, nor JSON"),
        ("image,caption\na.jpg,\n", "holds no captions: each row needs"),
        ("image,caption\n", "holds no captions"),
        ("image,caption\na.jpg\n", "line 2: 'a.jpg' has no image and caption"),
        ("image,caption\n,a cow\n", "line 2: ',a cow' has no image and caption"),
        ("image,caption\n/data/a.jpg,a cow\n", "is absolute; write it relative"),
        ("image,caption\na.jpg,\"a cow\n" + "b.jpg,a boat on a lake\n" * 400, "mark is not closed"),
        ("\x00\x01", "is no table of captions"),
        ("", "is empty, not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_captions(text, said, tmp_path):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        captions.read(tmp_path / "c.csv")


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="pipes have no names here")
def test_json_from_a_pipe_is_read_whole():
    """As a shell gives it for `--captions <(zcat captions.json.gz)`."""
    written = b'{"images": [{"id": 3, "file_name": "a.jpg"}], "annotations": [{"id": 1, "image_id": 3, "caption": "A cow"}]}'
    end, start = os.pipe()
    os.write(start, written)
    os.close(start)
    (image,) = captions.read(f"/dev/fd/{end}").images
    os.close(end)
    assert (image.id, image.captions[0].text) == (3, "A cow")

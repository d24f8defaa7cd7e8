"""Files of images and labels: one separator for a whole file."""

import pytest

from ovtool.errors import InputError
from ovtool.formats import label_lists


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a.jpg,hot dog\nb.jpg,hot dog,apple\n", [("hot dog",), ("hot dog", "apple")]),
        ("a.jpg,hot dog\nb.jpg,apple\n", [("hot dog",), ("apple",)]),
        ("a.jpg\thot dog\nb.jpg\thot dog,apple\n", [("hot dog",), ("hot dog", "apple")]),
        ("a.jpg\thot dog\nb.jpg\thot dog\tapple\n", [("hot dog",), ("hot dog", "apple")]),
        ("a.jpg;hot dog\nb.jpg;hot dog;apple\n", [("hot dog",), ("hot dog", "apple")]),
        ('a.jpg,"hot dog"\nb.jpg, "hot dog,apple"\n', [("hot dog",), ("hot dog", "apple")]),
        ("a.jpg cow\nb.jpg cow boat\n", [("cow",), ("cow", "boat")]),
        ("a.jpg,cow\nb.jpg\n", [("cow",), ()]),
        ("# remark\n\na.jpg,x\n  # another, remark\nb.jpg,y\n", [("x",), ("y",)]),
        ("image,label\na.jpg,x\nb.jpg,y\n", [("x",), ("y",)]),
        ("\ufeffa.jpg,x\r\nb.jpg,y\r\n", [("x",), ("y",)]),
    ],
)
def test_labels(tmp_path, text, labels):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    found = label_lists.read(tmp_path / "labels.csv")
    assert [line.name for line in found] == ["a.jpg", "b.jpg"]
    assert [line.labels for line in found] == labels


def test_lines_keep_their_numbers_and_names_their_blanks(tmp_path):
    (tmp_path / "labels.csv").write_text("file_name,labels\n\nmy photo.jpg,cow\n")
    assert label_lists.read(tmp_path / "labels.csv") == [
        label_lists.LabelledLine(3, "my photo.jpg", ("cow",))
    ]


def test_broken_files(tmp_path):
    with pytest.raises(InputError, match="no such file: .*gone.csv, and no data set"):
        label_lists.read(tmp_path / "gone.csv")
    (tmp_path / "bad.csv").write_bytes(b"\xe9t\xe9\n")
    with pytest.raises(InputError, match="not UTF-8 text at byte 0"):
        label_lists.read(tmp_path / "bad.csv")
    (tmp_path / "empty.csv").write_text("\n")
    assert label_lists.read(tmp_path / "empty.csv") == []

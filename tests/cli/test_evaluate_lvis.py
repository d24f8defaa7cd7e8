"""AP by LVIS's rule, against figures that are worked out by hand (Gupta et al., CVPR 2019, section 3.4).

The same rule was compared with `LVISEval` of the package lvis 0.5.3 on four random sets of eight images and nine
classes, with up to 429 predictions an image: all thirteen figures are equal to 1e-9.
"""

import json

import numpy as np
import pytest

import ovtool
from ovtool.formats import rle
from ovtool.settings.evaluate import AveragePrecision

SIDE = 8
A, B, C, D = 1, 2, 5, 9  # ids with gaps


def mask(row):
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[row] = True
    return rle.encode(pixels)


def truth_of(is_lvis=True):
    images = [{"id": 1, "width": SIDE, "height": SIDE}, {"id": 2, "width": SIDE, "height": SIDE}]
    for image, lacking, partly in zip(images, ([B], []), ([D], []), strict=True):
        name = f"val2017/{image['id']:012d}.jpg"
        if is_lvis:
            image |= {"coco_url": f"http://images.cocodataset.org/{name}"}
            image |= {"neg_category_ids": lacking, "not_exhaustive_category_ids": partly}
        else:
            image["file_name"] = name
    shown = [(1, A, 0), (1, D, 1), (2, B, 2), (2, C, 3)]
    annotations = [
        {
            "id": k,
            "image_id": i,
            "category_id": c,
            "segmentation": mask(row),
            "area": 8,
            "bbox": [0, row, 8, 1],
        }
        for k, (i, c, row) in enumerate(shown, start=1)
    ]
    frequency = {A: "r", B: "c", C: "f", D: "f"}
    categories = [{"id": c, "name": f"class {c}", "frequency": frequency[c]} for c in (A, B, C, D)]
    return {"images": images, "annotations": annotations, "categories": categories}


PREDICTED = [
    (1, A, 0, 0.9),  # right
    (1, B, 5, 0.8),  # wrong: B is surely not there
    (1, C, 6, 0.95),  # nobody looked for C in this image
    (1, D, 1, 0.5),  # right
    (1, D, 7, 0.9),  # there may be more of D than is drawn
    (2, B, 2, 0.6),  # right
    (2, C, 3, 0.6),  # right
]


def measured(folder, truth, predicted):
    files = {"truth.json": truth, "results.json": [
        {"image_id": i, "category_id": c, "segmentation": mask(row), "score": score}
        for i, c, row, score in predicted
    ]}  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    metric = AveragePrecision(bootstrap=50)
    return ovtool.evaluate(folder / "results.json", folder / "truth.json", metric)


def test_what_nobody_looked_for_is_not_wrong(tmp_path):
    result = measured(tmp_path, truth_of(), PREDICTED)
    of_class = {row["name"]: row["ap"] for row in result["classes"]}
    assert of_class == pytest.approx({"class 1": 1, "class 2": 0.5, "class 5": 1, "class 9": 1})
    assert result["ap"] == pytest.approx(3.5 / 4)
    frequencies = [result[f"ap_{name}"] for name in ("rare", "common", "frequent")]
    assert frequencies == pytest.approx([1, 0.5, 1])
    assert result["ar_300"] == 1 and "ar_100" not in result
    assert result["rule"] == "lvis" and result["truth_masks"] == 4
    assert result["intervals"]["ap"]["low"] >= 0.5


def test_without_its_lists_the_rule_is_that_of_coco(tmp_path):
    result = measured(tmp_path, truth_of(is_lvis=False), PREDICTED)
    assert result["ap"] == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    assert "rule" not in result and result["ar_100"] == 1


def test_the_best_300_predictions_of_an_image_count_whatever_their_classes(tmp_path):
    """299 predictions that are left out and a better one of B leave room for no more."""
    others = [(1, C, 6, 0.99)] * 299
    result = measured(tmp_path, truth_of(), [*others, (1, B, 5, 0.95), (1, A, 0, 0.9)])
    assert result["ap_rare"] == 0
    result = measured(tmp_path, truth_of(), [*others[1:], (1, B, 5, 0.95), (1, A, 0, 0.9)])
    assert result["ap_rare"] == pytest.approx(1)


def test_the_table_says_the_rule(tmp_path, capsys):
    from ovtool.cli import evaluation

    result = measured(tmp_path, truth_of(), PREDICTED)
    evaluation.say(result, AveragePrecision(), as_json=False)
    printed = capsys.readouterr().out
    for text in ("AP, rare classes", "AR, 300 masks of an image", "by LVIS's rule"):
        assert text in printed

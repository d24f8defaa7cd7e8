"""`ovtool evaluate` on files: right numbers, every kind of input, and every bad one."""

import json
import os
import time

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from typer.testing import CliRunner

from ovtool.cli.errors import run
from ovtool.formats import coco, label_maps, merge, parts, rle
from ovtool.settings.evaluate import MeanIou
from ovtool.settings.shared import Run, Source
from ovtool.stages import evaluate

WORDS = ("cow", "grass", "sky")
HEIGHT, WIDTH = 12, 17


def random_maps(count, seed, low=-1, high=3):
    random = np.random.default_rng(seed)
    return {
        f"field/{k}.jpg": random.integers(low, high, (HEIGHT, WIDTH)).astype(np.int32)
        for k in range(count)
    }


def noisy(maps, seed, low=-1, high=3):
    """Predictions that are right about two times in three."""
    random = np.random.default_rng(seed)
    return {
        name: np.where(
            random.random(labels.shape) < 0.6, labels, random.integers(low, high, labels.shape)
        ).astype(np.int32)
        for name, labels in maps.items()
    }


def dataset(maps, words=WORDS, synonyms=None, first_id=1, score=0.5):
    """Label maps as a COCO data set; category ids count up from `first_id`."""
    images = [
        coco.Image(k, name, labels.shape[1], labels.shape[0])
        for k, (name, labels) in enumerate(maps.items(), start=1)
    ]
    categories = [
        coco.Category(first_id + k, word, synonyms=tuple((synonyms or {}).get(word, ())))
        for k, word in enumerate(words)
    ]
    annotations = []
    for image in images:
        labels = maps[image.file_name]
        for k, mask in rle.encode_label_map(labels, range(len(words))).items():
            number = len(annotations) + 1
            annotations.append(coco.annotation(number, image.id, first_id + k, mask, score))
    return coco.Dataset({"description": "a test"}, images, annotations, categories)


def write_coco(path, maps, *arguments, **settings):
    coco.write(dataset(maps, *arguments, **settings), path)
    return str(path)


def write_folder(folder, maps, words=WORDS, ending=".png"):
    for name, labels in maps.items():
        path = (folder / name).with_suffix(ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        label_maps.write(path, labels, len(words))
    label_maps.write_classes(folder / "classes.txt", words)
    return str(folder)


def write_results(path, maps):
    whole = dataset(maps)
    entries = [
        {
            "image_id": a.image_id,
            "category_id": a.category_id,
            "score": a.score,
            "segmentation": a.segmentation,
        }
        for a in whole.annotations
    ]
    path.write_text(json.dumps(entries))
    return str(path)


def write_parts(folder, maps, words=WORDS):
    """The label maps as two parts, their images in reverse order."""
    whole = dataset(dict(reversed(maps.items())), words)
    settings = {"classes": list(words)}
    start = merge.preface({}, whole.categories)
    store = parts.PartStore(folder, parts.settings_digest(settings), settings, start)
    for part in parts.cut(len(whole.images), 3):
        records = [
            parts.image_record(
                image.file_name,
                image.height,
                image.width,
                [
                    {"category_id": a.category_id, "segmentation": a.segmentation, "score": 0.5}
                    for a in whole.annotations
                    if a.image_id == image.id
                ],
            )
            for image in whole.images[part.start : part.stop]
        ]
        store.write(part, records)
    return str(folder)


def pairs_of(predicted, true):
    """All counted pixels as (found, true), background taken as one more class where counted."""
    found = np.concatenate([predicted[name].ravel() for name in true])
    there = np.concatenate([labels.ravel() for labels in true.values()])
    return found, there


def expected_iou(predicted, true, num_classes=3, with_background=False):
    """IoU of every class by its definition; None where neither side has the class."""
    found, there = pairs_of(predicted, true)
    if with_background:
        found, there = found % (num_classes + 1), there % (num_classes + 1)  # -1 is the last class
        num_classes += 1
    found, there = found[there >= 0], there[there >= 0]
    result = []
    for k in range(num_classes):
        either = np.sum((found == k) | (there == k))
        result.append(float(np.sum((found == k) & (there == k)) / either) if either else None)
    return result


def ious(result):
    return {c["name"]: c["iou"] for c in result["classes"]}


@pytest.fixture
def maps():
    true = random_maps(4, seed=1)
    return noisy(true, seed=2), true


@pytest.mark.parametrize("prediction_is", ["coco", "results", "label maps", "parts"])
@pytest.mark.parametrize("truth_is", ["coco", "label maps"])
def test_every_kind_of_file_gives_the_same_numbers(tmp_path, maps, prediction_is, truth_is):
    predicted, true = maps
    if (prediction_is, truth_is) == ("results", "label maps"):
        pytest.skip("a bare results list needs the ids of a COCO truth")
    truth = (
        write_coco(tmp_path / "truth.json", true)
        if truth_is == "coco"
        else write_folder(tmp_path / "truth", true)
    )
    if prediction_is == "coco":
        prediction = write_coco(tmp_path / "found.json", predicted, first_id=40)
    elif prediction_is == "results":
        prediction = write_results(tmp_path / "found.json", predicted)
    elif prediction_is == "parts":
        prediction = write_parts(tmp_path / "found.parts", predicted)
    else:
        prediction = write_folder(tmp_path / "found", predicted)
    result = evaluate.run(prediction, truth)
    assert list(ious(result).values()) == pytest.approx(expected_iou(predicted, true))
    assert result["images"] == 4
    assert result["pixels"] == sum(int((labels >= 0).sum()) for labels in true.values())


def test_the_numbers_are_those_of_torchmetrics(tmp_path):
    true = random_maps(3, seed=5)
    predicted = noisy(true, seed=6, low=0)
    result = evaluate.run(
        write_coco(tmp_path / "p.json", predicted), write_coco(tmp_path / "t.json", true)
    )
    found, there = (torch.from_numpy(side) for side in pairs_of(predicted, true))
    metric = MulticlassJaccardIndex(len(WORDS), ignore_index=-1)
    assert result["miou"] == pytest.approx(float(metric(found.clamp(min=0), there)), abs=1e-6)


def test_with_background_counts_unlabelled_pixels_as_a_class(tmp_path, maps):
    predicted, true = maps
    result = evaluate.run(
        write_coco(tmp_path / "p.json", predicted),
        write_coco(tmp_path / "t.json", true),
        MeanIou(with_background=True),
    )
    assert list(ious(result)) == [*WORDS, "background"]
    expected = expected_iou(predicted, true, with_background=True)
    assert list(ious(result).values()) == pytest.approx(expected)
    assert result["pixels"] == 4 * HEIGHT * WIDTH


def test_a_class_named_background_is_the_background(tmp_path):
    true = {"a.png": np.array([[0, 1], [1, 1]], dtype=np.int32)}
    found = {"a.png": np.array([[0, -1], [-1, 0]], dtype=np.int32)}
    result = evaluate.run(
        write_coco(tmp_path / "p.json", found, words=("cow",)),
        write_folder(tmp_path / "t", true, words=("cow", "Background")),
        MeanIou(with_background=True),
    )
    assert ious(result) == {"cow": 1 / 2, "Background": 2 / 3}


def test_classes_are_matched_by_name_and_synonym_whatever_the_ids(tmp_path, maps):
    predicted, true = maps
    order = [2, 0, 1]  # the prediction's own order: sky, cow, grass
    inverse = np.array([*np.argsort(order), -1], dtype=np.int32)
    prediction = write_coco(
        tmp_path / "p.json",
        {name: inverse[labels] for name, labels in predicted.items()},
        words=("heaven", "COW ", "meadow"),
        synonyms={"heaven": ["the blue", "sky"]},
        first_id=7,
    )
    truth = write_coco(tmp_path / "t.json", true, synonyms={"grass": ["lawn", "meadow"]})
    result = evaluate.run(prediction, truth)
    assert list(ious(result)) == list(WORDS)
    assert list(ious(result).values()) == pytest.approx(expected_iou(predicted, true))


def test_a_predicted_class_that_the_truth_lacks_is_wrong_not_ignored(tmp_path):
    true = {"a.png": np.array([[0, 0, 0, 1]], dtype=np.int32)}
    found = {"a.png": np.array([[0, 0, 1, 2]], dtype=np.int32)}
    result = evaluate.run(
        write_coco(tmp_path / "p.json", found, words=("cow", "horse", "grass")),
        write_coco(tmp_path / "t.json", true, words=("cow", "grass")),
    )
    assert ious(result) == {"cow": 2 / 3, "grass": 1.0, "horse": 0.0}
    assert result["pixel_accuracy"] == 3 / 4
    assert result["miou"] == (2 / 3 + 1) / 2
    assert result["miou_union"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    interval = result["intervals"]["miou_union"]  # of one image: each sample is that image
    assert interval["low"] == interval["high"] == pytest.approx(5 / 9)


def test_ambiguous_synonyms_are_refused(tmp_path, maps, capsys):
    predicted, true = maps
    prediction = write_coco(
        tmp_path / "p.json", predicted, words=("animal", "b", "c"),
        synonyms={"animal": ["cow", "sky"]},
    )  # fmt: skip
    assert run(["evaluate", prediction, "--ground-truth", write_coco(tmp_path / "t", true)]) == 2
    assert "'animal' could be any of cow, sky" in capsys.readouterr().err


def test_ignore_label_by_name_and_by_value(tmp_path, maps):
    predicted, true = maps
    prediction = write_coco(tmp_path / "p.json", predicted)
    without = {name: np.where(labels == 1, -1, labels) for name, labels in true.items()}
    expected = expected_iou(predicted, without)[::2]
    for truth, label in (
        (write_coco(tmp_path / "t.json", true), "Grass"),
        (write_folder(tmp_path / "t", true), "1"),
    ):
        result = evaluate.run(prediction, truth, MeanIou(ignore_label=[label]))
        found = ious(result)
        assert [found["cow"], found["sky"]] == pytest.approx(expected)
        assert found.get("grass", 0.0) == 0.0  # it has no truth left, and is predicted in places


def test_void_pixels_stay_ignored_with_background(tmp_path):
    """As in VOC: background is a class of its own, 255 is void."""
    true = {"a.png": np.array([[0, 1, -1, -1]], dtype=np.int32)}
    found = {"a.png": np.array([[-1, 0, 0, -1]], dtype=np.int32)}
    result = evaluate.run(
        write_coco(tmp_path / "p.json", found, words=("cow",)),
        write_folder(tmp_path / "t", true, words=("background", "cow")),
        MeanIou(with_background=True, ignore_label=("255",)),
    )
    assert ious(result) == {"background": 1.0, "cow": 1.0}
    assert result["pixels"] == 2


def test_classes_per_image_leaves_out_what_nobody_could_find(tmp_path, maps):
    predicted, true = maps
    words = {name: ["cow", "meadow|grass", "unicorn"] for name in true}
    words["field/2.jpg"] = ["sky"]
    table = tmp_path / "words.json"
    table.write_text(json.dumps(words))
    result = evaluate.run(
        write_coco(tmp_path / "p.json", predicted),
        write_coco(tmp_path / "t.json", true),
        MeanIou(classes_per_image=table),
    )
    heard = {
        name: np.where(np.isin(labels, [2] if name == "field/2.jpg" else [0, 1]), labels, -1)
        for name, labels in true.items()
    }
    assert list(ious(result).values()) == pytest.approx(expected_iou(predicted, heard))


def test_images_are_matched_by_the_end_of_the_path_if_nothing_else_agrees(tmp_path, maps):
    predicted, true = maps
    bare = {name.split("/")[1]: labels for name, labels in predicted.items()}
    truth = write_coco(tmp_path / "t.json", true)
    result = evaluate.run(write_coco(tmp_path / "p.json", bare), truth)
    assert list(ious(result).values()) == pytest.approx(expected_iou(predicted, true))


def test_images_without_prediction(tmp_path, maps, capsys):
    predicted, true = maps
    del predicted["field/1.jpg"]
    prediction = write_coco(tmp_path / "p.json", {**predicted, "other.jpg": true["field/0.jpg"]})
    truth = write_coco(tmp_path / "t.json", true)
    assert run(["evaluate", prediction, "--ground-truth", truth]) == 1
    said = capsys.readouterr().err
    assert "lacks 1 of the 4 images" in said and "'field/1.jpg'" in said and "--missing" in said

    some = {name: true[name] for name in predicted}
    skipped = evaluate.run(prediction, truth, MeanIou(missing="skip"))
    assert list(ious(skipped).values()) == pytest.approx(expected_iou(predicted, some))
    assert (skipped["images"], skipped["images_missing"]) == (3, 1)
    assert skipped["images_without_truth"] == 1

    nothing = {"field/1.jpg": np.full((HEIGHT, WIDTH), -1)}
    empty = evaluate.run(prediction, truth, MeanIou(missing="empty"))
    assert list(ious(empty).values()) == pytest.approx(expected_iou(predicted | nothing, true))


def test_masks_that_overlap_are_painted_in_the_order_of_the_file(tmp_path):
    whole, part = np.ones((2, 4), dtype=bool), np.zeros((2, 4), dtype=bool)
    part[:, :1] = True
    layers = [(1, whole), (2, part)]
    annotations = [
        coco.annotation(k + 1, 1, category, rle.encode(mask), 1.0)
        for k, (category, mask) in enumerate(layers)
    ]
    images, categories = (
        [coco.Image(1, "a.png", 4, 2)],
        [coco.Category(1, "a"), coco.Category(2, "b")],
    )
    coco.write(coco.Dataset({}, images, annotations, categories), tmp_path / "t.json")
    painted = {"a.png": np.array([[1, 0, 0, 0]] * 2, dtype=np.int32)}
    prediction = write_coco(tmp_path / "p.json", painted, words=("a", "b"))
    assert evaluate.run(prediction, str(tmp_path / "t.json"))["miou"] == 1.0


def test_stdout_holds_one_json_object_and_stderr_the_table(tmp_path, maps):
    from ovtool.cli.app import app

    predicted, true = maps
    arguments = ["evaluate", write_coco(tmp_path / "p.json", predicted)]
    arguments += ["--ground-truth", write_coco(tmp_path / "t.json", true)]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    expected = expected_iou(predicted, true)
    assert result["miou"] == pytest.approx(sum(expected) / 3)
    assert 0 < result["miou"] < 1 and result["metric"] == "miou"
    for name in ("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert 0 < result[name] < 1
    cow = next(line for line in done.stderr.splitlines() if line.startswith("cow"))
    assert f"{100 * expected[0]:.2f}" in cow.split()

    alone = CliRunner().invoke(app, arguments)
    assert alone.stdout == done.stderr and alone.stderr == ""
    assert CliRunner().invoke(app, [*arguments, "-q"]).output == alone.stdout
    assert CliRunner().invoke(app, [*arguments, "-q", "--json"]).output == done.stdout

    target = tmp_path / "scores.json"
    assert CliRunner().invoke(app, [*arguments, "-o", str(target)]).exit_code == 0
    assert json.loads(target.read_text())["miou"] == result["miou"]
    assert run([*arguments, "-o", str(target)]) == 1  # it exists
    assert run([*arguments, "-o", str(target), "--overwrite"]) == 0


def slow_means(predicted, true, names):
    """mIoU over the classes of the truth, and of truth or prediction, of some images, with repetition."""
    found = np.concatenate([predicted[name].ravel() for name in names])
    there = np.concatenate([true[name].ravel() for name in names])
    found, there = found[there >= 0], there[there >= 0]
    ious = {}
    for k in range(3):
        either = np.sum((found == k) | (there == k))
        if either:
            ious[k] = np.sum((found == k) & (there == k)) / either
    return [np.mean([v for k, v in ious.items() if k in there]), np.mean(list(ious.values()))]


def test_both_conventions_have_intervals_over_images(tmp_path):
    true = random_maps(6, seed=1, high=2)  # no sky in the truth
    predicted = noisy(true, seed=2)
    files = write_coco(tmp_path / "p.json", predicted), write_coco(tmp_path / "t.json", true)
    result = evaluate.run(*files, MeanIou(bootstrap=50))
    names = sorted(true)
    rng = np.random.default_rng(0)
    samples = []
    for row in rng.multinomial(6, [1 / 6] * 6, size=50):
        drawn = [name for name, count in zip(names, row, strict=True) for _ in range(count)]
        samples.append(slow_means(predicted, true, drawn))
    ends = np.quantile(samples, [0.025, 0.975], axis=0)
    for k, key in enumerate(("miou", "miou_union")):
        assert result[key] == pytest.approx(slow_means(predicted, true, names)[k])
        assert list(result["intervals"][key].values()) == pytest.approx(ends[:, k])
    assert result["miou"] > result["miou_union"]
    assert "intervals" not in evaluate.run(*files, MeanIou(bootstrap=0))


def test_two_predictions_are_compared_on_the_same_samples(tmp_path, maps, capsys):
    worse, true = maps
    better = {name: np.where(k % 2, true[name], worse[name]) for k, name in enumerate(true)}
    files = [write_coco(tmp_path / f"{k}.json", side) for k, side in enumerate((worse, better))]
    truth = write_coco(tmp_path / "t.json", true)
    line = ["evaluate", *files, "--ground-truth", truth]
    assert run([*line, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for k, side in enumerate((worse, better)):
        own = (result, result["other"])[k]
        assert own["miou"] == pytest.approx(slow_means(side, true, list(true))[0])
    difference = result["difference"]["miou"]
    assert difference["value"] == pytest.approx(result["other"]["miou"] - result["miou"])
    assert 0 <= difference["low"] < difference["value"] < difference["high"]
    assert result["ovtool"]["settings"]["other"] == "1.json"
    assert run(line) == 0
    first = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("mIoU"))
    assert f"{100 * difference['value']:.2f}" in first.split()

    del better["field/0.jpg"]
    files[1] = write_coco(tmp_path / "less.json", better)
    line = ["evaluate", *files, "--ground-truth", truth, "--missing", "skip"]
    assert run(line) == 1
    assert "are predictions of other images" in capsys.readouterr().err


def test_the_table_says_what_is_not_counted(tmp_path, maps, capsys):
    predicted, true = maps
    unlabelled = sum(int((labels < 0).sum()) for labels in true.values())
    whole = 4 * HEIGHT * WIDTH
    files = write_coco(tmp_path / "p.json", predicted), write_coco(tmp_path / "t.json", true)
    assert run(["evaluate", files[0], "--ground-truth", files[1]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"4 images are counted, with {whole - unlabelled} pixels"
    share = f"{100 * unlabelled / whole:.1f} %"
    assert lines[-1] == f"{unlabelled} pixels ({share}) are not counted: unlabelled in the truth"


@pytest.mark.parametrize("folder", ["images/val", "val"])
def test_the_truth_is_the_folder_of_a_data_set(tmp_path, maps, folder, capsys):
    predicted, true = maps
    home = tmp_path / "set"
    (home / folder).mkdir(parents=True)
    (home / "annotations").mkdir()
    write_coco(home / "annotations" / "semantic_val.json", true)
    prediction = write_coco(tmp_path / "p.json", predicted)
    result = evaluate.run(prediction, home)
    assert list(ious(result).values()) == pytest.approx(expected_iou(predicted, true))
    (home / "annotations" / "instances_train.json").touch()
    assert run(["evaluate", prediction, "--ground-truth", str(home)]) == 1
    assert "has the splits train, val; name the JSON" in capsys.readouterr().err


def test_a_results_list_comes_through_stdin(tmp_path, maps, monkeypatch):
    from ovtool.cli.app import app

    predicted, true = maps
    text = (tmp_path / "p.json").read_text() if write_coco(tmp_path / "p.json", predicted) else ""
    truth = write_coco(tmp_path / "t.json", true)
    done = CliRunner().invoke(app, ["evaluate", "-", "--ground-truth", truth, "--json"], input=text)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 4


def bad(tmp_path, maps, case):
    """Arguments that must fail, with the status and words of the message."""
    predicted, true = maps
    prediction = write_coco(tmp_path / "p.json", predicted)
    truth = write_coco(tmp_path / "t.json", true)
    small = {name: labels[:-1] for name, labels in predicted.items()}
    other = {f"elsewhere/x{k}.jpg": labels for k, labels in enumerate(predicted.values())}
    words = tmp_path / "words.json"
    if case == "no such file":
        return ["none.json", truth], 1, ["none.json"]
    if case == "sizes differ":
        return (
            [write_coco(tmp_path / "s", small), truth],
            1,
            ["differ in size", "17 x 11 and 17 x 12"],
        )
    if case == "no image in common":
        return (
            [write_coco(tmp_path / "o", other), truth],
            1,
            ["no image in common", "'elsewhere/x0.jpg'"],
        )
    if case == "unknown ignore label":
        return (
            [prediction, truth, "--ignore-label", "tree"],
            2,
            ["no class 'tree'", "cow, grass, sky"],
        )
    if case == "everything ignored":
        labels = [option for word in WORDS for option in ("--ignore-label", word)]
        return [prediction, truth, *labels], 1, ["not one of its pixels is counted"]
    if case == "results without ids":
        results = write_results(tmp_path / "r.json", predicted)
        return [results, write_folder(tmp_path / "f", true)], 1, ["bare list of results"]
    if case == "folder without classes":
        write_folder(tmp_path / "f", true)
        (tmp_path / "f" / "classes.txt").unlink()
        return [prediction, str(tmp_path / "f")], 1, ["classes.txt"]
    if case == "label beyond the classes":
        folder = write_folder(tmp_path / "f", true)
        label_maps.write_classes(tmp_path / "f" / "classes.txt", WORDS[:2])
        return [prediction, folder], 1, ["label 2", "only 2 classes"]
    if case == "words missing":
        words.write_text(json.dumps({"field/0.jpg": ["cow"]}))
        return [prediction, truth, "--classes-per-image", str(words)], 1, ["no words for 3 images"]
    if case == "words are no lists":
        words.write_text(json.dumps({"field/0.jpg": "cow"}))
        return [prediction, truth, "--classes-per-image", str(words)], 1, ["'field/0.jpg'", "list"]
    if case == "both from stdin":
        return ["-", "-"], 2, ["only one of the files"]
    folder = write_folder(tmp_path / "f", {"a.jpg": true["field/0.jpg"]})
    twice = {"a.jpg": true["field/0.jpg"], "a.png": true["field/0.jpg"]}
    return (
        [write_coco(tmp_path / "w", twice), folder],
        1,
        ["'a.jpg' and 'a.png' cannot be told apart"],
    )


@pytest.mark.parametrize(
    "case",
    [
        "no such file",
        "sizes differ",
        "no image in common",
        "unknown ignore label",
        "everything ignored",
        "results without ids",
        "folder without classes",
        "label beyond the classes",
        "words missing",
        "words are no lists",
        "both from stdin",
        "stems that collide",
    ],
)
def test_bad_input_is_one_line_with_its_status(tmp_path, maps, case, capsys):
    (prediction, truth, *rest), status, words = bad(tmp_path, maps, case)
    assert run(["evaluate", prediction, "--ground-truth", truth, *rest]) == status
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1, said.err
    for word in words:
        assert word in said.err


def test_every_option_reaches_the_function(handed):
    scores = ("miou", "miou_union", "mean_accuracy", "frequency_weighted_iou", "pixel_accuracy")
    counts = ("pixels", "pixels_not_counted", "images", "images_missing", "images_without_truth")
    seen = handed(evaluate, {"classes": [], **dict.fromkeys([*scores, *counts], 0)})
    line = "evaluate p.json --ground-truth t.json --with-background --ignore-label cow -o x.json"
    line += " --ignore-label 7 --classes-per-image w.json --missing skip --overwrite --bootstrap 7"
    line += " --update"
    assert run(line.split()) == 0
    own = MeanIou(
        with_background=True,
        ignore_label=("cow", "7"),
        classes_per_image="w.json",
        missing="skip",
        bootstrap=7,
    )
    files = {"prediction": "p.json", "ground_truth": "t.json", "out": "x.json", "other": None}
    how = {"source": Source(), "run": Run(overwrite=True, update=True)}
    assert seen == {**files, "metric": own, **how}


def test_a_data_set_its_folder_and_its_file_are_one_truth(desk, capsys):
    assert run("data make collage scenes --count 3 --size 64".split()) == 0
    truth = "scenes/annotations/semantic_demo.json"
    given = (
        ["--ground-truth", "scenes"],
        ["--ground-truth", truth],
        ["--coco", truth, "--images", "scenes/images/demo"],
    )
    for words in given:
        capsys.readouterr()
        assert run(["evaluate", truth, *words, "--json", "-q"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["miou"], said["images"]) == (1.0, 3)


def test_there_is_one_truth(fails, tmp_path, maps):
    predicted, true = maps
    files = [write_coco(tmp_path / f"{n}.json", m) for n, m in (("p", predicted), ("t", true))]
    two = "give the truth as --ground-truth GT, or as --coco FILE --images DIR"
    assert fails(2, "evaluate", files[0]) == two
    assert fails(2, "evaluate", *files[:1], "--ground-truth", files[1], "--coco", files[1]) == two
    lone = ["evaluate", files[0], "--ground-truth", files[1], "--images", tmp_path]
    assert "--images is the folder of --coco FILE" in fails(2, *lone)
    gone = ["evaluate", files[0], "--coco", files[1], "--images", "gone"]
    assert "no folder gone with the images of" in fails(1, *gone)


@pytest.mark.parametrize("metric", ["miou", "recall"])
def test_a_dry_run_measures_nothing(metric, tmp_path, maps, capsys, monkeypatch):
    predicted, true = maps
    for module in ("label_maps", "masks"):
        monkeypatch.setattr(f"ovtool.measures.{module}.measure", None)
    files = [write_coco(tmp_path / f"{n}.json", m) for n, m in (("p", predicted), ("t", true))]
    line = ["evaluate", files[0], "--ground-truth", files[1], "--metric", metric, "--dry-run"]
    assert run([*line, "-o", str(tmp_path / "x.json"), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == f"would measure {len(true)} images, into {tmp_path / 'x.json'}\n"
    assert json.loads(said.out)["images"] == len(true)
    assert not (tmp_path / "x.json").exists()


def test_a_result_is_made_again_only_where_something_changed(tmp_path, maps, capsys):
    predicted, true = maps
    files = [write_coco(tmp_path / f"{n}.json", m) for n, m in (("p", predicted), ("t", true))]
    out = tmp_path / "scores.json"
    line = ["evaluate", files[0], "--ground-truth", files[1], "-o", str(out), "--update"]

    def is_made():
        capsys.readouterr()
        before = out.stat().st_mtime_ns if out.exists() else 0
        assert run(line) == 0
        said = capsys.readouterr()
        is_new = out.stat().st_mtime_ns != before
        assert (said.err == f"{out} is up to date\n") != is_new
        return is_new

    assert is_made() and not is_made()
    line += ["--with-background"]
    assert is_made() and not is_made()
    os.utime(files[0], (time.time() + 100, time.time() + 100))
    assert is_made()
    first = ["evaluate", files[0], "--ground-truth", files[1], "--update"]
    for rest in ([], ["-o", "-"]):
        assert run([*first, *rest]) == 2
        assert "--update compares the times of files" in capsys.readouterr().err


def test_the_result_holds_no_path(tmp_path, maps):
    predicted, true = maps
    words = tmp_path / "words.json"
    words.write_text(json.dumps({name: list(WORDS) for name in true}))
    files = write_coco(tmp_path / "p.json", predicted), write_folder(tmp_path / "t", true)
    result = evaluate.run(*files, MeanIou(classes_per_image=words))
    assert str(tmp_path) not in json.dumps(result)
    assert result["ovtool"]["settings"]["prediction"] == "p.json"
    assert result["ovtool"]["settings"]["ground_truth"] == "t"

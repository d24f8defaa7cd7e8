"""What a model recommends, and what is published for every other."""

import dataclasses
import functools
import json
from importlib import resources

import pytest

from ovtool.errors import UsageError
from ovtool.models import clip as clips
from ovtool.models import recommendations, sources
from ovtool.models.word_table import WordTable
from ovtool.settings.cam import Gradcam, LabelMatching
from ovtool.settings.pairs import Matching
from ovtool.settings.refine import PromptStep
from ovtool.settings.segment import Fused, TwoStage
from ovtool.settings.words import Words

PUBLISHED = {"sentence": "published {}."}


def test_the_bundled_clip_recommends_what_was_measured_on_it():
    clip = clips.load("tiny")
    cases = (
        (Gradcam(), {"sentence": "a clean origami {}."}, "sentence", "a photo of a {}."),
        (LabelMatching(), {"background_weight": 2.4}, "background_weight", 0.75),
        (PromptStep(), {"refine_weight": 0.05}, "refine_weight", 2.0),
        (Matching(), {"matching": "cosine"}, "matching", "softmax"),
        (Matching(), {"region_features": "crops"}, "region_features", "both"),
        (TwoStage(), {"region_features": "crops"}, "region_features", "both"),
        (TwoStage(), {"ensemble": 0.7}, "ensemble", 0.8),
    )
    for settings, published, name, value in cases:
        taken, origins = recommendations.settled(clip, settings, published)
        assert getattr(taken, name) == value and origins[name] == "model"


def test_every_file_of_recommendations_names_settings_that_exist():
    classes = {
        "gradcam": Gradcam,
        "label_matching": LabelMatching,
        "matching": Matching,
        "prompt_step": PromptStep,
        "two_stage": TwoStage,
        "fused": Fused,
        "words": Words,
        "table": functools.partial(
            WordTable.of, ("entree", "football helmet", "potted plant"), (0, 1, 2)
        ),
    }
    files = [
        file
        for file in resources.files("ovtool.weights").iterdir()
        if file.name.endswith(".recommended.json")
    ]
    assert files
    for file in files:
        for name, values in json.loads(file.read_text()).items():
            classes[name](**values)


def test_any_other_clip_takes_what_is_published(small):
    assert not small.recommended and not recommendations.of_bundled("none")
    taken, origins = recommendations.settled(small, Gradcam(), PUBLISHED)
    assert taken.sentence == "published {}." and origins["sentence"] == "default"


def test_what_is_given_comes_before_what_a_model_recommends(small):
    clip = dataclasses.replace(small, recommended={"gradcam": {"sentence": "its {}."}})
    taken, origins = recommendations.settled(clip, Gradcam(), PUBLISHED)
    assert taken.sentence == "its {}." and origins["sentence"] == "model"
    taken, origins = recommendations.settled(clip, Gradcam(sentence="mine {}."), PUBLISHED)
    assert taken.sentence == "mine {}." and origins["sentence"] == "given"
    asked = Matching(recipe="ovseg")  # what was asked for by name, too
    measured = dataclasses.replace(small, recommended={"matching": {"matching": "softmax"}})
    taken, origins = recommendations.settled(measured, asked, {})
    assert taken.matching == "cosine" and origins["matching"] == "recipe"
    wrong = dataclasses.replace(small, recommended={"gradcam": {"colour": 1}})
    with pytest.raises(UsageError, match="the model sets 'colour'"):
        recommendations.settled(wrong, Gradcam(), PUBLISHED)


def test_what_another_setting_replaces_is_not_taken_from_the_model(small):
    clip = dataclasses.replace(small, recommended={"fused": {"segments": [60], "crf": "irn"}})
    taken, origins = recommendations.settled(clip, Fused(proposer="regions"), {}, ("segments",))
    assert (taken.segments, taken.crf) == (None, "irn")
    assert (origins["segments"], origins["crf"]) == ("default", "model")


def test_a_copy_of_a_bundled_model_has_what_was_measured_on_it(tmp_path):
    for name in ("tiny.json", "tiny.safetensors"):
        (tmp_path / f"my-{name}").write_bytes((sources.bundled_folder() / name).read_bytes())
    copied = clips.load(str(tmp_path / "my-tiny.safetensors"))
    assert copied.recommended == clips.load("tiny").recommended != {}
    assert recommendations.of_content("0" * 16) == {}

"""Every protocol fits the data sets, the vocabularies and the classes of settings that it names."""

import pytest

import ovtool
from ovtool.cli import declare, evaluate, segment
from ovtool.datasets import layouts, registry, vocabularies
from ovtool.errors import UsageError
from ovtool.settings import protocols
from ovtool.settings.evaluate import MeanIou
from ovtool.settings.layers import as_data, layered
from ovtool.settings.option import fields
from ovtool.settings.segment import Fused, Patch, TwoStage
from ovtool.settings.words import Words

NAMES = list(protocols.PROTOCOLS)


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_names_what_there_is(name):
    protocol = protocols.PROTOCOLS[name]
    assert registry.split_name(protocol.data_set) == tuple(protocol.data_set.split(":"))
    assert protocol.vocabulary in {*vocabularies.known(), *layouts.LABEL_FILES}
    assert Words(protocol=name).vocabulary == protocol.vocabulary
    for recipe in (None, "naclip", "sclip", "clearclip", "maskclip"):
        made = Patch(recipe=recipe, protocol=name)
        values = protocols.values(name, Patch, recipe)
        assert {field: getattr(made, field) for field in values} == values
        _, origins = layered(made)
        assert {field for field, origin in origins.items() if origin == "protocol"} == set(values)
    assert protocols.sentence(name).startswith(f"protocol {name}: the classes of ")


def test_every_name_of_a_protocol_is_one():
    assert set(protocols.Name.__args__) == set(NAMES)


def test_values_that_papers_state():
    sclip, clearclip = (Patch(recipe=recipe, protocol="voc21") for recipe in ("sclip", "clearclip"))
    assert (sclip.short_side, sclip.min_score, sclip.logit_scale, sclip.window) == (
        336,
        0.1,
        65,
        224,
    )
    assert (clearclip.short_side, clearclip.min_score, clearclip.logit_scale) == (448, 0.5, 50)
    assert Patch(recipe="naclip", protocol="voc20").window == 0
    assert Patch(recipe="naclip", protocol="coco-stuff171").short_side == 336
    assert Patch(recipe="sclip", protocol="coco-stuff171").short_side == 448
    assert Patch(recipe="naclip", protocol="cityscapes19").short_side == 560
    assert TwoStage(recipe="ovseg", protocol="pc59").ensemble == 0.6
    assert TwoStage(recipe="ovseg", protocol="ade847").ensemble == 0.7
    assert TwoStage(recipe="ovseg", protocol="voc21").ensemble == 0.7  # that of the recipe
    assert Fused(protocol="pc60").min_score == 0.1 and Fused().min_score == 0
    words = Words(protocol="voc21")
    assert words.names == "clip" and words.background.split(",")[:2] == ["sky", "wall"]
    assert MeanIou(protocol="voc21") == MeanIou(
        protocol="voc21", with_background=True, ignore_label=("255",)
    )
    assert MeanIou(protocol="ade150").with_background is False


def test_what_is_given_counts_more_than_the_protocol():
    assert Patch(protocol="pc60", min_score=0.3).min_score == 0.3
    assert Words(protocol="voc20", vocabulary="coco171").vocabulary == "coco171"
    assert Words(protocol="voc20", names="official").names == "official"
    with pytest.raises(UsageError, match="--protocol voc20 names the words; leave --classes out"):
        Words(protocol="voc20", classes="cow")
    with pytest.raises(UsageError, match="--names is for the words of --vocabulary"):
        Words(classes="cow", names="clip")


def test_a_protocol_is_one_option_and_no_protocol_leaves_no_trace():
    parts = {part.name: part for part in declare.read(segment.segment)}
    given = {"protocol": "voc20", "recipe": "naclip"}
    assert parts["words"].value(given) == Words(protocol="voc20")
    assert parts["method"].value(given) == Patch(recipe="naclip", protocol="voc20")
    assert parts["method"].value({"protocol": "voc20"}) == Fused(protocol="voc20")
    with pytest.raises(
        UsageError, match="--protocol belongs to --method patch or fused or two-stage"
    ):
        parts["method"].value({"protocol": "voc20", "method__segmenter": "s.safetensors"})
    assert "protocol" not in as_data(Patch())
    assert as_data(Patch(protocol="voc20"))["protocol"] == "voc20"
    parts = {part.name: part for part in declare.read(evaluate.evaluate)}
    with pytest.raises(
        UsageError, match="--protocol belongs to --metric miou or boundary-iou or seeds"
    ):
        parts["metric"].value({"protocol": "voc20", "metric__": "recall"})
    assert set(fields(ovtool.MeanIou)) >= {"protocol", "with_background"}

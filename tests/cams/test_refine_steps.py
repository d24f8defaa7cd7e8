"""The steps of `refine`, each alone on a collage scene, their order, and what they need."""

import re

import pytest
import torch

from ovtool.cams import refine_steps as steps
from ovtool.cams.refine_steps import Context
from ovtool.datasets import collage_files
from ovtool.errors import UsageError
from ovtool.methods import attention_affinity, pixel_adaptive, random_walk
from ovtool.methods.pseudo_masks import Background
from ovtool.settings.refine import Apply


@pytest.fixture(scope="module")
def scene():
    """A image (80, 96) with a red disc and a blue bar on grey, and their true masks (2, 80, 96)."""
    y, x = torch.meshgrid(torch.arange(80), torch.arange(96), indexing="ij")
    disc = (y - 36) ** 2 + (x - 28) ** 2 < 20**2
    bar = (x > 64) & (x < 84) & (y > 10) & (y < 70)
    image = torch.full((80, 96, 3), 128, dtype=torch.uint8)
    image[disc] = torch.tensor([220, 30, 30], dtype=torch.uint8)
    image[bar] = torch.tensor([20, 40, 200], dtype=torch.uint8)
    noise = torch.randint(0, 12, image.shape, generator=torch.Generator().manual_seed(0))
    return image + noise.byte(), torch.stack([disc, bar])


@pytest.fixture(scope="module")
def coarse(scene):
    """Maps of the two on a coarse grid, (2, 10, 12), as a network gives them."""
    masks = scene[1].float()[None]
    return torch.nn.functional.interpolate(masks, size=(10, 12), mode="area")[0]


def iou(maps, masks, background):
    """The mean IoU of labels from maps against masks, background included."""
    size = masks.shape[1:]
    maps = torch.nn.functional.interpolate(maps[None], size=size, mode="bilinear")[0]
    found = torch.cat([background.score(maps)[None], maps]).argmax(0)
    truth = torch.where(masks.any(0), masks.float().argmax(0) + 1, 0)
    scores = []
    for label in range(len(masks) + 1):
        one, other = found == label, truth == label
        scores.append((one & other).sum() / (one | other).sum())
    return float(torch.stack(scores).mean())


POWER = Background("power", 1.0)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("affinity", {"short_side": 48}, (3, 4)),
        ("walk", {"short_side": 48}, (3, 4)),
        ("walk", {"walk_on": "colour"}, (20, 24)),
        ("pamr", {}, (80, 96)),
        ("crf", {}, (80, 96)),
        ("crf", {"crf": "clip-es"}, (80, 96)),
        ("sam", {}, (80, 96)),
    ],
)
def test_each_step_alone_returns_maps(scene, coarse, small, name, options, size):
    image, masks = scene
    context = Context(small, masks, Apply(**options))
    found = steps.STEPS[name](image, coarse, context)
    assert found.shape == (2, *size) and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    assert found.std() > 0.01
    assert torch.equal(found, steps.STEPS[name](image, coarse, context))


@pytest.mark.parametrize(
    ("name", "options"),
    [("walk", {"walk_on": "colour"}), ("pamr", {}), ("crf", {"crf": "pydensecrf"}), ("sam", {})],
)
def test_steps_on_pixels_bring_maps_to_the_objects(scene, coarse, name, options):
    image, masks = scene
    coarse = torch.nn.functional.interpolate(coarse[None], size=(5, 6), mode="area")[0]
    context = Context(None, masks, Apply(**options), POWER)
    before = iou(coarse, masks, POWER)
    after = iou(steps.STEPS[name](image, coarse, context), masks, POWER)
    assert after > before + 0.01
    assert before < 0.95


def test_steps_follow_each_other_on_a_collage_scene(small):
    spec = collage_files.CollageSpec("demo", 1, 3, 64)
    image = torch.from_numpy(next(iter(collage_files.scenes(spec))).pixels.copy())
    maps = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    context = Context(small, torch.zeros(0, 64, 64, dtype=torch.bool), Apply(short_side=48))
    order = ["affinity", "walk", "pamr", "crf", "sam"]
    found = steps.run(image, maps, order, context)
    assert found.shape == (1, 64, 64) and found.isfinite().all()


def test_sam_votes_by_the_smallest_proposal():
    maps = torch.tensor([[[0.9, 0.8, 0.1, 0.1]], [[0.0, 0.1, 0.8, 0.0]]])  # K, 1, 4
    proposals = torch.tensor([[[True, True, False, False]], [[True, True, True, True]]])
    against = Background("constant", 0.5)
    image = torch.zeros(1, 4, 3, dtype=torch.uint8)
    found = steps.sam(image, maps, Context(proposals=proposals, background=against))
    wanted = torch.tensor([[[1.0, 1.0, 0.5, 0.5]], [[0.0, 0.0, 0.25, 0.25]]])
    torch.testing.assert_close(found, wanted)
    one = steps.sam(image, maps, Context(proposals=proposals[:1], background=against))
    torch.testing.assert_close(one[:, :, 2:], maps[:, :, 2:])  # none covers them


def test_maps_of_no_class_and_constant_maps(scene, small):
    image, masks = scene
    context = Context(small, masks, Apply(short_side=48))
    none = torch.zeros(0, 10, 12)
    assert steps.run(image, none, ["walk", "crf"], context) is none
    for name, step in steps.STEPS.items():
        for value in (0.0, 0.5):
            found = step(image, torch.full((1, 10, 12), value), context)
            assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1, name


@pytest.mark.parametrize(
    ("order", "options", "message"),
    [
        (["blur"], {}, "--apply 'blur' is not one of 'prompts', 'affinity'"),
        (["crf", "prompts"], {}, "prompts makes new maps, which would undo crf; put prompts first"),
        (["prompts", "prompts"], {}, "put prompts first, once"),
        (["crf", "affinity"], {}, "affinity works on patches and would undo crf, which works on"),
        (["pamr", "walk"], {}, "walk works on patches and would undo pamr"),
        (["walk", "affinity"], {"walk_on": "colour"}, "put affinity before walk"),
    ],
)
def test_orders_that_cannot_work(order, options, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        Apply(apply=tuple(order), **options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("order", "options", "clip"),
    [
        (["prompts", "affinity", "walk", "pamr", "crf", "sam"], {}, True),
        (["crf", "walk"], {"walk_on": "colour"}, False),
        (["crf", "pamr", "crf"], {}, False),
        (["prompts"], {}, False),
    ],
)
def test_orders_that_work_and_what_they_need(order, options, clip):
    proposals = "p.json" if "sam" in order else None
    assert Apply(apply=tuple(order), proposals=proposals, **options).reads_attention is clip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("affinity", "the step affinity reads a CLIP's attention; give --model NAME"),
        ("walk", "the step walk reads a CLIP's attention; give --model NAME"),
        ("sam", "the step sam needs proposals; give --proposals FILE"),
    ],
)
def test_a_step_without_what_it_needs(scene, coarse, name, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        steps.STEPS[name](scene[0], coarse, Context())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": "deeplab"}, "--crf 'deeplab' is not one of 'pydensecrf', 'irn',"),
        ({"walk_on": "edges"}, "--walk-on 'edges' is not one of 'attention', 'colour'"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Apply(**options)


def test_defaults_are_those_of_the_methods():
    own = Apply()
    assert own.walk_beta == random_walk.BETA and own.pamr_iterations == pixel_adaptive.ITERATIONS
    assert own.box_threshold == attention_affinity.BOX_THRESHOLD

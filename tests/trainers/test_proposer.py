"""The steps of a proposer: optimiser, frozen norms, settings of an architecture, and many ranks as one process."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import MaskFormerConfig, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ovtool.errors import UsageError
from ovtool.models import maskformer
from ovtool.settings import option
from ovtool.settings.proposer import ProposerTraining
from ovtool.trainers import pixel_networks
from ovtool.trainers import proposer as proposer_trainer
from ovtool.training.distributed import Ranks

TINY = ProposerTraining(architecture="tiny")


def micro(architecture="tiny", queries=6):
    """The smallest network, in place of any architecture."""
    backbone = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = MaskFormerDetrConfig(
        encoder_layers=0,
        num_queries=queries,
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        dropout=0.0,
    )
    return MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=16
    )


def test_nothing_decays_that_should_not():
    network = maskformer.MaskFormer(micro(), 8)
    training, _ = proposer_trainer.settled(ProposerTraining(architecture="resnet50", lr=1.0), 8)
    groups = proposer_trainer.optimizer_of(network, training).param_groups
    place = {id(p): (g["lr"], g["weight_decay"] > 0) for g in groups for p in g["params"]}
    assert len(place) == len(list(network.parameters()))
    for name, module in network.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            rate, decays = place[id(parameter)]
            bare = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d | nn.Embedding)
            assert decays == (not bare and own != "no_object")
            assert rate == (0.1 if "pixel_level_module.encoder" in name else 1.0)


def test_frozen_norms_keep_their_statistics():
    network = maskformer.MaskFormer(micro(), 8)
    pixel_networks.set_mode(network, True, pixel_networks.batch_norms(network))
    before = {n: b.clone() for n, b in network.named_buffers()}
    network(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(b, before[n]) for n, b in network.named_buffers())
    pixel_networks.set_mode(network, True)
    network(torch.randn(2, 3, 32, 32))
    assert not all(torch.equal(b, before[n]) for n, b in network.named_buffers())


def test_a_batch_that_cannot_be_shared():
    network = maskformer.MaskFormer(micro(), 8)
    with pytest.raises(UsageError, match="--batch-size 5 cannot be shared by 2 processes"):
        proposer_trainer.task(
            network,
            torch.zeros(1, 8),
            lambda step, row: None,
            replace(TINY, batch_size=5),
            Ranks(0, 2, torch.device("cpu")),
        )


RANKS = """
import sys
from pathlib import Path
import numpy as np, torch
from transformers import MaskFormerConfig, MaskFormerSwinConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig
from ovtool.models.maskformer import MaskFormer
from ovtool.trainers import proposer as proposer_trainer
from ovtool.batches.masks import Example
from ovtool.settings.proposer import ProposerTraining
from ovtool.training import checkpoints, distributed, loop

torch.set_default_dtype(torch.float64)
backbone = MaskFormerSwinConfig(
    image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
    drop_path_rate=0.0, out_features=["stage1", "stage2", "stage3", "stage4"])
decoder = MaskFormerDetrConfig(
    encoder_layers=0, num_queries=5, d_model=32, decoder_layers=2, decoder_attention_heads=2,
    decoder_ffn_dim=32, dropout=0.0)
config = MaskFormerConfig(
    backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=8)

def example(step, row):
    rng = np.random.default_rng([step, row])
    count = row % 4  # one row has no mask at all
    masks = rng.random((count, 32, 32)) > 0.7
    return Example(rng.integers(0, 256, (32, 32, 3), np.uint8), masks, np.arange(count))

settings, _ = proposer_trainer.settled(ProposerTraining(
    architecture="tiny", queries=5, steps=3, batch_size=4, lr=1e-3, warmup=0), 4)
with distributed.joined(torch.device("cpu")) as ranks:
    torch.manual_seed(3 + ranks.rank)
    if ranks.world == 1:
        torch.manual_seed(3)
    network = MaskFormer(config, 6)
    words = torch.nn.functional.normalize(
        torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    distributed.share(network, ranks)
    checkpoint = checkpoints.beside(Path(sys.argv[1]), "a")
    task = proposer_trainer.task(network, words, example, settings, ranks)
    curve = loop.train(task, checkpoint, ranks=ranks)
    if ranks.is_first:
        numbers = torch.cat([p.detach().flatten() for p in network.parameters()])
        np.save(sys.argv[1], np.array([*(r["loss"] for r in curve), *numbers.tolist()]))
"""


def test_two_ranks_are_one_process(tmp_path, in_ranks):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    found = []
    for world in (1, 2):
        target = tmp_path / f"{world}.npy"
        in_ranks(world, script, target)
        found.append(np.load(target))
    assert len(found[0]) > 10_000 and np.isfinite(found[0]).all()
    apart = np.abs(found[0] - found[1])
    assert (
        apart[0] < 1e-10 and apart[:3].max() < 1e-5
    )  # the losses, of which the first has no history
    # Adam divides by the gradient's size, so where that is nought but rounding, rounding is what moves
    assert np.quantile(apart, 0.99) < 1e-8 and apart.max() < 1e-3


def test_every_architecture_is_known_on_the_command_line():
    architectures = option.fields(ProposerTraining)["architecture"].choices
    assert architectures == maskformer.ARCHITECTURES == tuple(pixel_networks.MASKFORMER)


@pytest.mark.parametrize("architecture", maskformer.ARCHITECTURES)
def test_an_architecture_fills_what_was_not_given(architecture):
    training = ProposerTraining(architecture=architecture, weight_decay=0.5)
    settled, origins = proposer_trainer.settled(training, 100)
    recipe = pixel_networks.MASKFORMER[architecture]
    assert (settled.steps, settled.lr, settled.crop_size) == (120_000, recipe.lr, recipe.crop_size)
    assert settled.warmup == recipe.warmup and settled.weight_decay == 0.5
    assert origins["weight_decay"] == "given" and origins["lr"] == "default"


def test_a_random_backbone_is_said_in_one_line(monkeypatch):
    said = []
    monkeypatch.setattr(maskformer, "configuration", micro)
    monkeypatch.setattr(maskformer.hub, "is_cached", lambda name: False)
    monkeypatch.setattr(
        pixel_networks._logger, "warning", lambda text, *given: said.append(text % given)
    )
    ranks = Ranks(0, 1, torch.device("cpu"))
    for architecture in ("tiny", "resnet50"):
        training = ProposerTraining(architecture=architecture, queries=6)
        assert proposer_trainer.start(training, 8, ranks)[1] is None
    (line,) = said
    assert line.startswith("the backbone of resnet50 begins at random weights")

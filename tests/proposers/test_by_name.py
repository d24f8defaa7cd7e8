"""Proposers by name, their bounds, and embeddings kept beside the masks."""

import numpy as np
import pytest
import torch
from transformers import MaskFormerConfig, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ovtool.errors import InputError, MismatchError, OutputExistsError, UsageError
from ovtool.formats import coco, image_search, tensors
from ovtool.formats import images as image_files
from ovtool.methods.regions import Regions
from ovtool.models import clip as clips
from ovtool.models import hub, maskformer, resolve
from ovtool.proposers import by_name, names, proposal_sources, proposals
from ovtool.settings.propose import Propose
from ovtool.settings.shared import Compute, Run
from ovtool.stages import propose


@pytest.fixture
def trained(small, tmp_path):
    """A proposer file at random weights for the small CLIP, whose masks vary."""
    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=stages,
    )  # fmt: skip
    decoder = MaskFormerDetrConfig(
        encoder_layers=0, num_queries=8, d_model=32, decoder_layers=2, decoder_attention_heads=2,
        decoder_ffn_dim=32, dropout=0.0,
    )  # fmt: skip
    config = MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=16
    )
    network = maskformer.MaskFormer(config, small.embed_dim)
    words = torch.nn.functional.normalize(torch.randn(3, small.embed_dim), dim=-1)
    path = tmp_path / "proposer.safetensors"
    settings = {"names": ["a", "b", "c"], "short_side": 64}
    maskformer.save(path, network, words, small, settings)
    return path


def test_bounds_of_a_networks_masks():
    soft = np.zeros((5, 10, 10), np.float32)
    soft[0, :5] = 0.9
    soft[1, :5], soft[1, 5, :2] = 0.8, 0.8  # IoU 50/52 with the first
    soft[2, 5:] = 0.7
    soft[3, 0, 0] = 0.9  # 1 % of the image
    quality = np.array([0.5, 0.6, 0.9, 1.0, 0.95], np.float32)  # the last mask is empty
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = proposals.bounded(soft, quality, Propose(min_area=0.02), vectors)
    assert found.quality.tolist() == pytest.approx([0.9, 0.6])
    assert np.array_equal(found.masks(), soft[[2, 1]] > 0.5)
    assert np.array_equal(found.soft, soft[[2, 1]])
    assert np.array_equal(found.embeddings, vectors[[2, 1]])
    every = proposals.bounded(soft, quality, Propose(min_area=0, nms=1.0))
    assert every.quality.tolist() == pytest.approx([1.0, 0.9, 0.6, 0.5])
    assert len(proposals.bounded(soft, quality, Propose(max_proposals=1)).quality) == 1
    none = proposals.bounded(soft[:0], quality[:0], Propose(proposer="regions"))
    assert none.masks().shape == (0, 10, 10) and none.soft.shape == (0, 10, 10)


def test_masks_of_the_bundled_network_are_cut_along_superpixels():
    superpixels = np.repeat(np.repeat(np.arange(4, dtype=np.int32).reshape(2, 2), 5, 0), 5, 1)
    members = np.array([[1, 0, 0, 0], [0, 0, 1, 1]], bool)  # a corner, and the lower half
    merged = Regions(superpixels, members, np.array([0.4, 0.2], np.float32))
    soft = np.zeros((3, 10, 10), np.float32)
    soft[0, :, :4] = 0.9  # two left superpixels at a mean of 0.72
    soft[1, 5:, 2:] = 0.6  # lower right whole, lower left at 0.36
    soft[2, :2] = 1.0  # no superpixel by more than a half
    quality = np.array([0.9, 0.3, 0.8], np.float32)
    vectors = np.eye(3, dtype=np.float32)
    found = proposals.completed(merged, soft, quality, vectors, Propose(proposer="regions"))
    assert found.quality.tolist() == pytest.approx([0.9, 0.4, 0.3, 0.2])
    drawn = [[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]
    assert np.array_equal(found.members, np.array(drawn, bool)) and found.soft is None
    # the corner overlaps the first mask most, the half the second
    assert np.array_equal(found.embeddings, vectors[[0, 0, 1, 1]])
    few = proposals.completed(merged, soft, quality, vectors, Propose(max_proposals=2))
    assert np.array_equal(few.members, found.members[:2])
    large = proposals.completed(merged, soft, quality, vectors, Propose(min_area=0.3))
    assert np.array_equal(large.members, found.members[[0, 3]])
    same = proposals.completed(merged, soft, quality, vectors, Propose(nms=0.4))
    assert np.array_equal(same.members, found.members[[0, 2]])  # IoU 1/2 with a better one


def test_more_suppression_leaves_fewer_regions(photos):
    rgb = image_files.read_rgb(photos / "a.png")
    plain = by_name.load(Propose(proposer="regions"))(rgb)
    tight = by_name.load(Propose(proposer="regions", nms=0.3))(rgb)
    assert 0 < len(tight.quality) < len(plain.quality)
    assert plain.soft is None and plain.embeddings is None


def test_a_trained_proposer_gives_soft_masks_and_embeddings(trained, small, photos):
    source = proposal_sources.from_proposer(str(trained), clip=small)
    item = image_search.find_images([str(photos / "a.png")])[0]
    found = source.find(item, image_files.read_rgb(item.path))
    count = len(found.quality)
    assert count and source.proposer == "proposer.safetensors"
    assert found.soft.shape == (count, 40, 64) and np.array_equal(found.soft > 0.5, found.masks())
    assert found.embeddings.shape == (count, small.embed_dim)
    assert np.allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    assert source.no_object.shape == (small.embed_dim,)
    assert found.quality.tolist() == sorted(found.quality.tolist(), reverse=True)


@pytest.fixture
def kept(trained, photos, tmp_path):
    """proposals.json with embeddings.safetensors of three images, in parts of two."""
    out, vectors = tmp_path / "p.json", tmp_path / "e.safetensors"
    propose.run(
        [str(photos)], Propose(proposer=str(trained), nms=0.95), save_embeddings=vectors, out=out,
        compute=Compute(device="cpu"), run=Run(part_size=2),
    )  # fmt: skip
    return out, vectors


def test_embeddings_lie_beside_the_masks(kept, trained, small, photos):
    out, path = kept
    dataset = coco.read(out)
    items = image_search.find_images([str(photos)])
    rows, no_object = proposal_sources.read_embeddings(path, dataset, small)
    assert rows.shape == (len(dataset.annotations), small.embed_dim) and len(rows) >= 3
    live = proposal_sources.from_proposer(str(trained), clip=small)
    source = proposal_sources.of_masks(dataset, out, embeddings=path, clip=small)
    assert np.allclose(source.no_object, live.no_object, atol=1e-6)
    assert torch.allclose(torch.from_numpy(source.no_object), no_object)
    live_settings = Propose(proposer=str(trained), nms=0.95)
    finder = by_name.load(live_settings, clip=small)
    for item in items:
        rgb = image_files.read_rgb(item.path)
        found, expected = source.find(item, rgb), finder(rgb)
        assert found.embeddings.shape == expected.embeddings.shape
        assert np.allclose(found.embeddings, expected.embeddings, atol=2e-3)
        assert np.array_equal(found.masks(), expected.masks()) and found.soft is None
    header = tensors.read_header(path)
    assert header["settings"]["temperature"] == 0.01
    assert header["settings"]["annotations"] == len(dataset.annotations)
    made_by = dataset.info["ovtool"]["settings"]
    assert made_by["proposer"] == "proposer.safetensors" and len(made_by["weights"]) == 16
    assert made_by["nms"] == 0.95


def test_parts_of_any_size_and_resume_give_the_same_bytes(
    kept, trained, photos, tmp_path, monkeypatch
):
    out, path = kept
    again, vectors = tmp_path / "q.json", tmp_path / "f.safetensors"
    inner, calls = maskformer.propose, []

    def cut(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(*arguments)

    given = {
        "masks": Propose(proposer=str(trained), nms=0.95), "save_embeddings": vectors,
        "out": str(again), "compute": Compute(device="cpu"),
    }  # fmt: skip
    monkeypatch.setattr(maskformer, "propose", cut)
    with pytest.raises(KeyboardInterrupt):
        propose.run([str(photos)], **given, run=Run(part_size=2))
    monkeypatch.setattr(maskformer, "propose", inner)
    assert not again.exists() and not vectors.exists()
    propose.run([str(photos)], **given, run=Run(part_size=2, resume=True))
    assert again.read_bytes() == out.read_bytes() and vectors.read_bytes() == path.read_bytes()
    with pytest.raises(OutputExistsError, match="f.safetensors"):
        propose.run([str(photos)], **(given | {"out": str(tmp_path / "r.json")}))


def test_embeddings_of_other_proposals_or_another_clip(kept, small, tmp_path):
    out, path = kept
    dataset = coco.read(out)
    fewer = coco.Dataset(dataset.info, dataset.images, dataset.annotations[:-1], dataset.categories)
    with pytest.raises(
        MismatchError, match="e.safetensors holds the embeddings of other proposals"
    ):
        proposal_sources.read_embeddings(path, fewer, small)
    other = type("Other", (), {"name": "large", "fingerprint": "f" * 16, "embed_dim": 24})()
    with pytest.raises(MismatchError, match="made with small .* the model here is large"):
        proposal_sources.read_embeddings(path, dataset, other)
    header, found = tensors.load(path)
    tensors.save(path, found | {"embeddings": found["embeddings"][:1]}, header)
    with pytest.raises(InputError, match="does not hold"):
        proposal_sources.read_embeddings(path, dataset, small)
    tensors.save(path, found | {"no_object": torch.full((24,), torch.nan)}, header)
    with pytest.raises(InputError, match="not finite"):
        proposal_sources.read_embeddings(path, dataset, small)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="truncated"):
        proposal_sources.read_embeddings(path, dataset, small)


def test_a_proposer_of_another_clip(trained, photos, tmp_path, monkeypatch):
    other = type("Other", (), {"name": "large", "fingerprint": "f" * 16})()
    monkeypatch.setattr(clips, "load", lambda name, device, dtype: other)
    with pytest.raises(MismatchError, match="made with small .*but the model here is large"):
        propose.run(
            [str(photos)],
            Propose(proposer=str(trained)),
            out=tmp_path / "x.json",
            compute=Compute(model="tiny"),
        )
    assert not (tmp_path / "x.json").exists()


def test_proposers_without_embeddings(photos, tmp_path):
    with pytest.raises(UsageError, match="--proposer regions has no embeddings"):
        propose.run(
            [str(photos)],
            Propose(proposer="regions"),
            save_embeddings=tmp_path / "e",
            out=tmp_path / "x",
        )


def test_a_image_in_which_nothing_is_found(trained, photos, small, tmp_path):
    out, vectors = tmp_path / "p.json", tmp_path / "e.safetensors"
    propose.run(
        [str(photos)], Propose(proposer=str(trained), min_area=1.0), save_embeddings=vectors,
        out=str(out), compute=Compute(device="cpu"),
    )  # fmt: skip
    dataset = coco.read(out)
    if not dataset.annotations:  # unless a mask covers everything
        rows, _ = proposal_sources.read_embeddings(vectors, dataset, small)
        assert rows.shape == (0, small.embed_dim)
    items = image_search.find_images([str(photos)])
    source = proposal_sources.of_masks(dataset, out, embeddings=vectors, clip=small)
    found = source.find(items[0], image_files.read_rgb(items[0].path))
    assert found.embeddings.shape == (len(found.quality), small.embed_dim)


def test_the_default_follows_model_cache_and_bundle(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv(resolve.ENVIRONMENT, raising=False)
    monkeypatch.setattr(resolve, "_default", lambda: "tiny")
    monkeypatch.setattr(names, "tiny_weights", lambda: tmp_path / "tiny.safetensors")
    monkeypatch.setattr(hub, "is_cached", lambda name: False)
    by_name._warn_of_regions.cache_clear()
    assert [by_name.default_name(m) for m in (None, "tiny")] == ["regions", "regions"]
    assert not caplog.records and "tiny" not in names.choices()
    monkeypatch.setattr(by_name.objectness, "bundled", lambda: tmp_path / "o.safetensors")
    (tmp_path / "o.safetensors").write_bytes(b"")
    assert by_name.default_name("photo") == "merging"
    assert by_name.default_name("photo", covers=True) == "regions" and not caplog.records
    for _ in range(2):
        assert by_name.default_name("ViT-B-16/openai") == "regions"
    (warning,) = caplog.records
    assert "ViT-B-16/openai" in warning.getMessage() and "hf download" in warning.getMessage()
    with pytest.raises(UsageError, match="unknown proposer 'tiny'"):
        by_name.load(Propose(proposer="tiny"))
    (tmp_path / "tiny.safetensors").write_bytes(b"")
    assert [by_name.default_name(m) for m in (None, "tiny")] == ["tiny", "tiny"]
    assert "tiny" in names.choices()
    monkeypatch.setattr(hub, "is_cached", lambda name: True)
    assert by_name.default_name("ViT-B-16/openai") == "maskformer"
    assert by_name.default_name("photo") == "maskformer"
    assert by_name.default_name("tiny") == "tiny"


@pytest.mark.parametrize("kind", ["maskformer", "sam"])
def test_a_hub_name_that_is_not_here(kind, monkeypatch):
    from ovtool.errors import ModelError
    from ovtool.models import sources

    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    with pytest.raises(ModelError, match="are not here and the hub does not answer.*hf download"):
        by_name.load(Propose(proposer=kind))
    with pytest.raises(ModelError, match="`hf download some/net`"):
        by_name.load(Propose(proposer=f"{kind}:some/net"))

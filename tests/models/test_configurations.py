"""Configurations that come with weights describe a network and cannot do more."""

import ast
import json
from pathlib import Path

import open_clip
import pytest
import torch
from transformers import AutoConfig

from ovtool.errors import ModelError
from ovtool.models import clip as clips
from ovtool.models import configurations, hub, hub_maskformer, sam, sources

CODE = "import pathlib\npathlib.Path({place!r}).touch()\n"
AUTO_MAP = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoImageProcessor": "evil.Evil"}


@pytest.fixture
def asks_no_one(monkeypatch):
    """Reading stdin, as transformers does to ask whether code may run, fails the test."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on stdin"))


@pytest.fixture
def ran(tmp_path):
    """The file that code of a model makes where it runs."""
    return tmp_path / "ran"


def put_code(folder, ran):
    folder.mkdir(exist_ok=True)
    (folder / "evil.py").write_text(CODE.format(place=str(ran)))
    return folder


def written(weights, config):
    weights.with_suffix(".json").write_text(json.dumps({"model_cfg": config}))
    return str(weights)


@pytest.fixture
def folder_with(save, build, native_config):
    """A model folder whose configuration is changed by `tower`, `key` and `value`."""

    def make(tower, key, value):
        weights = save(build(native_config), native_config)
        table = native_config if tower is None else native_config[tower]
        table[key] = value
        return written(weights, native_config)

    return make


@pytest.mark.parametrize(
    ("tower", "key", "value", "message"),
    [
        ("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}, "'tokenizer_kwargs.trust_remote_code' is not"),
        ("text_cfg", "tokenizer_kwargs", {"cache_dir": "/"}, "'tokenizer_kwargs.cache_dir' is not a key"),
        ("text_cfg", "tokenizer_kwargs", "x", "'text_cfg.tokenizer_kwargs' is 'x', not dict"),
        ("text_cfg", "hf_tokenizer_name", "evil/code", "hf_tokenizer_name 'evil/code' names a tokenizer of another"),
        ("text_cfg", "hf_tokenizer_name", "./evil", "hf_tokenizer_name './evil' names a tokenizer of another"),
        ("text_cfg", "hf_model_name", "evil/code", "hf_model_name 'evil/code' names a network of another"),
        ("text_cfg", "hf_model_config", {"auto_map": {}}, "'text_cfg.hf_model_config' is not a key"),
        ("text_cfg", "norm_kwargs", {"device": "cuda"}, "'norm_kwargs.device' is not a key"),
        ("text_cfg", "width", "32", "'text_cfg.width' is '32', not int"),
        ("vision_cfg", "timm_model_name", "vit_x:evil/code", "is not the name of a timm network"),
        ("vision_cfg", "timm_model_name", 3, "'vision_cfg.timm_model_name' is 3, not str"),
        ("vision_cfg", "act_kwargs", {"f": 1}, "'act_kwargs.f' is not a key"),
        (None, "cast_dtype", "x", "'cast_dtype' is not a key"),
        (None, "text_cfg", [], "it needs model_cfg, whole"),
    ],
)  # fmt: skip
def test_a_model_folder_says_no_more_than_a_network(
    folder_with, tower, key, value, message, monkeypatch, asks_no_one
):
    path = folder_with(tower, key, value)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(ModelError, match=message) as caught:
        clips.load(path)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_tokenizer_of_the_folder_runs_no_code(folder_with, ran, asks_no_one):
    path = folder_with("text_cfg", "hf_tokenizer_name", "evil/code")
    folder = put_code(Path(path).parent, ran)
    described = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="it needs code of its own, which ovtool never runs") as e:
        clips.load(path)
    assert not ran.exists() and "\n" not in str(e.value) and "trust" not in str(e.value)


def test_a_tokenizer_of_open_clip_takes_its_options(folder_with):
    clip = clips.load(folder_with("text_cfg", "tokenizer_kwargs", {"clean": "canonicalize"}))
    tokens = clip.tokenizer(["A cow, standing."], context_length=24)
    assert torch.equal(tokens, open_clip.tokenize(["a cow standing"], context_length=24))
    assert clip.tokenizer(["a"]).shape == (1, 24)


def test_a_text_tower_beside_the_working_directory_runs_no_code(
    folder_with, ran, tmp_path, monkeypatch, asks_no_one
):
    """transformers takes a folder of the working directory for a repository of that name."""
    path = folder_with("text_cfg", "hf_model_name", "roberta-base")
    monkeypatch.chdir(tmp_path)
    folder = put_code(tmp_path / "roberta-base", ran)
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": AUTO_MAP}))
    with pytest.raises(ModelError, match="cannot load the model in .*code of its own"):
        clips.load(path)
    assert not ran.exists()


def test_the_hubs_configuration_is_checked_before_its_weights_are_fetched(
    native_config, tmp_path, monkeypatch
):
    native_config["text_cfg"] |= {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"trust_remote_code": True}}  # fmt: skip
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": native_config}))
    monkeypatch.setattr(sources, "cached_file", lambda _, names: config if "open_clip_config.json" in names else None)  # fmt: skip
    monkeypatch.setattr(sources, "_download", lambda *_: pytest.fail("weights were fetched"))
    with pytest.raises(ModelError, match=r"'tokenizer_kwargs.trust_remote_code' is not a key"):
        clips.load("hf-hub:a/b")
    del native_config["text_cfg"]["tokenizer_kwargs"]
    native_config["text_cfg"]["hf_tokenizer_name"] = "evil/code"
    config.write_text(json.dumps({"model_cfg": native_config}))
    with pytest.raises(ModelError, match=r"'evil/code' names a tokenizer of another repository"):
        clips.load("hf-hub:a/b")


def test_every_configuration_of_open_clip_passes():
    """So that a model which open_clip saved can be loaded from its folder or repository."""
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        try:
            sources.check_architecture(name, config)
        except ModelError:
            continue
        configurations.check(config, name)
        configurations.tokenizer_of(config, "org/name", name)


def test_whose_tokenizer_it_is(tmp_path):
    def of(name, own):
        return configurations.tokenizer_of({"text_cfg": {"hf_tokenizer_name": name}}, own, "x")

    assert of(None, tmp_path) == of("", "org/name") == ""
    assert of("org/name", "org/name") == "org/name"
    assert of("roberta-base", tmp_path) == of("roberta-base", "org/name") == "roberta-base"
    with pytest.raises(ModelError, match="put the tokenizer's files into"):
        of("org/name", tmp_path)
    (tmp_path / "tokenizer.json").touch()
    assert of("roberta-base", tmp_path) == of("org/name", tmp_path) == str(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [3, {"mean": "abc"}, {"mean": [1, 2]}, {"std": [1, 2, "3"]}, {"std": [1, 0, 1]}, {"mean": [1, 2, float("nan")]}],
)  # fmt: skip
def test_a_normalisation_that_is_none(settings):
    with pytest.raises(ModelError, match="x.json: (preprocess_cfg|mean|std) is "):
        configurations.preprocessing(settings, "x.json")


# --- proposers ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("load", [hub_maskformer.load, sam.load])
def test_a_proposer_runs_no_code_and_asks_no_one(load, ran, tmp_path, asks_no_one):
    folder = put_code(tmp_path / "m", ran)
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": AUTO_MAP}))
    (folder / "model.safetensors").touch()
    message = (
        "cannot load .*m: it needs code of its own, which ovtool never runs; name another model"
    )
    with pytest.raises(ModelError, match=message) as caught:
        load(str(folder))
    assert not ran.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(("load", "kind"), [(hub_maskformer.load, "maskformer"), (sam.load, "sam")])
def test_a_processor_runs_no_code_and_asks_no_one(load, kind, ran, tmp_path, asks_no_one):
    folder = put_code(tmp_path / "m", ran)
    AutoConfig.for_model(kind).save_pretrained(folder)
    processor = {"image_processor_type": "Evil", "auto_map": AUTO_MAP}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "model.safetensors").touch()
    with pytest.raises(ModelError, match="it needs code of its own, which ovtool never runs"):
        load(str(folder))
    assert not ran.exists()


def test_a_backbone_of_another_repository_is_not_fetched(tmp_path):
    described = {
        "model_type": "maskformer",
        "backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:evil/code"},
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="its backbone hf-hub:evil/code is in another repository"):
        hub_maskformer.load(str(tmp_path))


def test_every_door_of_transformers_is_given_no_trust():
    """A loader that is not told what to do with code asks on stdin."""
    doors = {"from_pretrained", "get_tokenizer", "HFTokenizer"}
    seen = 0
    for path in Path(sources.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", None) not in doors:
                continue
            given = {one.arg or ast.unparse(one.value) for one in node.keywords}
            assert given & {"trust_remote_code", "hub.DOOR", "DOOR"}, f"{path.name}:{node.lineno}"
            seen += 1
    assert seen >= 6 and hub.DOOR["trust_remote_code"] is False

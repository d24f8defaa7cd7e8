"""Which model is meant, where it is, and what is said when it is not there."""

import json
import logging
import socket
import threading
import time
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer

from ovtool.errors import ModelError
from ovtool.models import clip as clips
from ovtool.models import resolve, sources
from ovtool.runtime import open_clip_files
from ovtool.settings.shared import Compute


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No cache, no network, no choice made before."""
    monkeypatch.delenv("OVTOOL_MODEL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", closed_port())
    resolve._default.cache_clear()
    yield
    resolve._default.cache_clear()


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that answers every request with `status`, after `delay` seconds."""
    servers = []

    def start(status=200, delay=0.0):
        class Answer(BaseHTTPRequestHandler):
            def do_HEAD(self):
                time.sleep(delay)
                self.send_response(status)
                self.end_headers()

            do_GET = do_HEAD

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def keep_in_cache(root, repository, name, content=b""):
    """Lay a file where huggingface_hub's cache has it."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    place = folder / "snapshots" / "abc" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_the_named_model_goes_before_artefact_environment_and_default(monkeypatch):
    monkeypatch.setenv("OVTOOL_MODEL", "from-environment")
    assert resolve.choose("named", "from-artefact") == "named"
    assert resolve.choose(None, "from-artefact") == "from-artefact"
    assert resolve.choose(None) == "from-environment"
    with pytest.raises(ModelError, match="--model is empty"):
        resolve.choose("  ")


def test_without_cache_and_network_it_is_tiny_with_one_warning(caplog):
    with caplog.at_level(logging.INFO, logger="ovtool"):
        assert resolve.choose(None) == resolve.choose(None) == "photo"
    (message,) = warnings_of(caplog)
    assert "'photo'" in message and "ViT-B-16/openai" in message and "\n" not in message
    assert "hf download timm/vit_base_patch16_clip_224.openai" in message and "--model" in message


def test_weights_in_the_cache_are_used_without_a_question(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sources, "hub_answers", lambda: pytest.fail("the cache is enough"))
    repository = "timm/vit_base_patch16_clip_224.openai"
    kept = keep_in_cache(tmp_path, repository, "open_clip_model.safetensors")
    assert resolve.choose(None) == "ViT-B-16/openai"
    assert sources.cached_weights("ViT-B-16", "openai") == kept
    assert not warnings_of(caplog)


@pytest.mark.parametrize("status", [200, 404, 429])
def test_a_hub_that_answers_gives_the_large_model(hub, status, caplog):
    hub(status)
    assert resolve.choose(None) == "ViT-B-16/openai"
    assert not warnings_of(caplog)


@pytest.mark.parametrize("status", [403, 503])
def test_a_hub_that_refuses_is_no_hub(hub, status):
    hub(status)
    assert resolve.choose(None) == "photo"


def test_a_hub_that_does_not_answer_in_time_is_no_hub(hub, monkeypatch):
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.2)
    hub(delay=4.0)
    start = time.perf_counter()
    assert not sources.hub_answers()
    assert time.perf_counter() - start < 3.5


def test_a_name_look_up_that_hangs_is_cut_off(monkeypatch):
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.2)
    given_up = threading.Event()

    def hang(*_, **__):
        given_up.wait(5)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://no.where.invalid")
    start = time.perf_counter()
    assert not sources.hub_answers()
    assert time.perf_counter() - start < 4
    given_up.set()


def test_offline_mode_asks_no_one(hub, monkeypatch):
    hub(200)
    assert sources.hub_answers()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources, "_head", lambda url: pytest.fail("asked"))
    assert not sources.hub_answers()
    assert resolve.choose(None) == "photo"


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ViT-B-16/openai", "hf download timm/vit_base_patch16_clip_224.openai"),
        ("ViT-B-16-SigLIP2/webli", "hf download timm/ViT-B-16-SigLIP2"),
        ("hf-hub:org/model", "hf download org/model"),
    ],
)
def test_a_named_model_never_falls_back(name, command, offline, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    start = time.perf_counter()
    with pytest.raises(ModelError, match="the hub does not answer") as caught:
        clips.load(name)
    assert time.perf_counter() - start < 10
    message = str(caught.value)
    assert f"`{command}`" in message and name in message and "\n" not in message
    assert caught.value.exit_code == 2


def test_the_environments_model_never_falls_back_either(monkeypatch):
    monkeypatch.setenv("OVTOOL_MODEL", "ViT-B-32/openai")
    with pytest.raises(ModelError, match="ViT-B-32/openai"):
        clips.load(None)


def test_a_download_that_fails_is_one_line(hub, monkeypatch):
    hub(404)

    def fail(*_, **__):
        raise OSError("no space left\non the disk")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", fail)
    with pytest.raises(ModelError, match="cannot fetch ViT-B-16/openai: no space left; fetch it"):
        clips.load("ViT-B-16/openai")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B16/openai", "unknown model 'ViT-B16/openai'; did you mean .*ViT-B-16"),
        ("vit-b-16/openai", "did you mean ViT-B-16"),
        ("tini", "did you mean .*tiny"),
        ("qqqqqqqq", "unknown model 'qqqqqqqq'; name it as open_clip does"),
        ("ViT-B-16/open", "has no weights called 'open'; choose from .*ViT-B-16/openai"),
        ("ViT-B-16", "is an architecture without weights; choose from ViT-B-16/"),
        ("RN50/openai", "not a plain vision transformer"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "not a plain vision transformer"),
        ("convnext_base/laion400m_s13b_b51k", "not a plain vision transformer"),
        ("PE-Core-B-16/meta", "not a plain vision transformer"),
        ("MobileCLIP-B/datacompdr", "not a plain vision transformer"),
        ("hf-hub:model", "write hf-hub:ORG/NAME"),
        ("./nothing-here", "no model at nothing-here"),
        ("folder/nothing.safetensors", "no model at folder/nothing.safetensors"),
    ],
)
def test_names_that_mean_nothing(name, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve.spec(name)
    assert "\n" not in str(caught.value)


def test_names_have_one_spelling():
    found = resolve.spec("ViT-B-32/laion2b-s34b-b79k")
    assert found.name == "ViT-B-32/laion2b_s34b_b79k"
    assert (found.architecture, found.pretrained) == ("ViT-B-32", "laion2b_s34b_b79k")
    assert resolve.spec("hf-hub:org/model/").name == "hf-hub:org/model"
    assert resolve.spec("tiny").kind == "bundled"


def test_every_transformer_of_open_clip_has_a_meaning():
    """All tags of open_clip's own towers and of SigLIP's are understood, each with a way to fetch it."""
    understood = set()
    for architecture, tag in open_clip.list_pretrained():
        try:
            resolve.spec(f"{architecture}/{tag}")
        except ModelError:
            continue
        understood.add(architecture)
        assert sources.fetch_command(architecture, tag).startswith(("hf download ", "python -c"))
    assert {"ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "ViT-B-16-SigLIP"} <= understood
    assert not {"RN50", "convnext_base", "EVA02-B-16", "coca_ViT-B-32"} & understood


def test_the_timm_towers_that_are_taken_are_the_plain_ones_whose_patches_can_be_read():
    """Each of open_clip's configurations with a vision transformer of timm, built without weights."""
    for architecture in open_clip_files.architectures():
        config = open_clip_files.configuration(architecture)
        trunk = str(config.get("vision_cfg", {}).get("timm_model_name") or "")
        if not trunk.startswith("vit_"):
            continue
        with torch.device("meta"):
            network = timm.create_model(trunk)
        is_plain = type(network) is VisionTransformer and type(network.patch_embed) is PatchEmbed
        try:
            sources.check_architecture(architecture, config)
        except ModelError:
            assert not is_plain, trunk
        else:
            assert is_plain, trunk


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("ViT-B-16/openai", True),
        ("ViT-B-16/metaclip_400m", True),
        ("ViT-B-16/dfn2b", True),
        ("ViT-B-16-quickgelu/openai", True),
        ("ViT-B-16/laion2b_s34b_b88k", False),
        ("ViT-B-16/datacomp_xl_s13b_b90k", False),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", True),
    ],
)
def test_quickgelu_is_as_the_tag_says(name, quick, monkeypatch):
    found = resolve.spec(name)
    monkeypatch.setattr(sources, "cached_weights", lambda *_: Path("weights.safetensors"))
    files = sources.pretrained(found.architecture, found.pretrained)
    assert bool(files.config.get("quick_gelu")) is quick
    assert files.weights == Path("weights.safetensors")


@pytest.mark.parametrize("blocks", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_real_weights_are_read_from_the_hubs_cache(tmp_path, pixels, monkeypatch, blocks):
    """ViT-B-32 at random weights, saved where the hub's client keeps it: through the same calls."""
    from open_clip import factory
    from safetensors.torch import save

    config = open_clip.get_model_config("ViT-B-32")
    for tower in (config["vision_cfg"], config["text_cfg"]):
        tower["layers"] = blocks
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-B-32", config)
    monkeypatch.setattr(open_clip_files, "configuration", lambda name: deepcopy(config))
    model = open_clip.create_model("ViT-B-32", force_quick_gelu=True).eval()
    repository = "timm/vit_base_patch32_clip_224.openai"
    data = save({k: v.half() for k, v in model.state_dict().items()})
    keep_in_cache(tmp_path, repository, "open_clip_model.safetensors", data)
    clip = clips.load("ViT-B-32/openai")
    expected = model.half().float().encode_image(pixels(224, 224), normalize=True)
    torch.testing.assert_close(
        clips.encode_images(clip, pixels(224, 224)), expected, rtol=0, atol=1e-5
    )
    assert clip.patch_size == 32 and clip.embed_dim == 512 and clip.words is None
    assert any(type(m).__name__ == "QuickGELU" for m in clip.model.visual.modules())


def test_a_hub_repository_is_read_from_its_cache(tmp_path, build, native_config, pixels):
    from safetensors.torch import save

    model = build(native_config)
    config = json.dumps({"model_cfg": native_config, "preprocess_cfg": {"mean": [0.5] * 3}})
    keep_in_cache(tmp_path, "org/small", "open_clip_config.json", config.encode())
    keep_in_cache(tmp_path, "org/small", "open_clip_model.safetensors", save(model.state_dict()))
    clip = clips.load("hf-hub:org/small")
    assert clip.name == "hf-hub:org/small" and clip.mean == (0.5, 0.5, 0.5)
    assert clips.encode_images(clip, pixels(48, 48)).shape == (2, 24)


def test_what_a_local_folder_may_lack(tmp_path, native_config):
    with pytest.raises(ModelError, match="no weights in"):
        clips.load(str(tmp_path))
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ModelError, match="no configuration beside"):
        clips.load(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ModelError, match="no open_clip configuration: it needs model_cfg"):
        clips.load(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("[broken")
    with pytest.raises(ModelError, match="is no open_clip configuration"):
        clips.load(str(tmp_path))
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(ModelError, match="several weights files"):
        clips.load(str(tmp_path))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelError, match="no weights file that is safe to read"):
        clips.load(str(tmp_path / "notes.txt"))


def test_an_installation_without_the_bundled_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "bundled_folder", lambda: tmp_path)
    with pytest.raises(
        ModelError, match="the bundled model 'tiny' is not in .*; install ovtool again"
    ):
        clips.load("tiny")


def test_a_tokenizer_that_is_not_installed_is_named(save, build, native_config, monkeypatch):
    native_config["text_cfg"]["hf_tokenizer_name"] = "org/tokenizer"
    weights = save(build(native_config), native_config)

    (weights.parent / "tokenizer.json").write_text("{}")

    def missing(*_, **__):
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", missing)
    with pytest.raises(ModelError, match="needs transformers; install it with `pip install"):
        clips.load(str(weights))


@pytest.mark.parametrize(
    ("given", "name"),
    [("my.safetensors", "my.safetensors"), ("./models", "models"), ("models/", "models"),
     ("models/..", "work"), (".", "work"), ("./tiny", "local-dir:tiny")],
)  # fmt: skip
def test_a_local_model_is_called_by_its_last_name(given, name, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    for inside in ("models", "tiny"):
        (folder / inside).mkdir(parents=True)
    (folder / "my.safetensors").touch()
    monkeypatch.chdir(folder)
    for spelled in (given, str(folder / given)):
        if spelled == "." or "/" in spelled or "." in spelled:
            assert resolve.spec(spelled).name == name


@pytest.mark.parametrize("name", ["my.safetensors", "my-models"])
def test_a_model_that_an_input_names_and_that_is_not_found_asks_for_its_place(name, tmp_path):
    message = f"the input was made with the model {name}, which is not found here; say where it is with --model"
    with pytest.raises(ModelError, match=message):
        clips.load(None, artefact=name)
    with pytest.raises(ModelError, match="^(?!the input)"):
        clips.load(name, artefact=name)


def test_a_data_set_recommends_a_model_where_none_is_named(monkeypatch, tmp_path):
    assert resolve.for_data(Compute(), "collage:test").model == "tiny"
    assert resolve.for_data(Compute(), ["collage"], None).model == "tiny"
    assert resolve.for_data(Compute(), ["photos/", Path("a.png")], "coco:val2017").model is None
    assert resolve.for_data(Compute(model="ViT-B-16/openai"), "collage").model == "ViT-B-16/openai"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "collage").mkdir()  # a folder of this name is no data set
    assert resolve.for_data(Compute(), "collage").model is None
    monkeypatch.setenv("OVTOOL_MODEL", "ViT-B-32/openai")
    assert resolve.for_data(Compute(), "collage:test").model is None


def test_the_fallback_is_a_bundled_model():
    assert sources.FALLBACK in sources.BUNDLED
    assert (sources.bundled_folder() / f"{sources.FALLBACK}.safetensors").is_file()

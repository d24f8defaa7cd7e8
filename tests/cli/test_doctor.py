"""`ovtool doctor`: what is here, what is missing, and an exit status that says if it matters."""

import json
import re
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ovtool.cli.app import app
from ovtool.models import sources
from ovtool.stages import doctor

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def distributions(requirements):
    return tuple(re.match(r"[\w-]+", requirement).group() for requirement in requirements)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A machine that no hub answers and whose caches are empty."""
    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    monkeypatch.setattr(sources, "cached_weights", lambda architecture, tag: None)
    monkeypatch.setenv("OVTOOL_CACHE", str(tmp_path / "cache"))


def test_the_lists_of_packages_are_those_of_pyproject():
    assert doctor.REQUIRED == distributions(PROJECT["dependencies"])
    assert doctor.DEMO == distributions(PROJECT["optional-dependencies"]["demo"])


def test_facts(no_hub, tmp_path):
    facts = doctor.run()
    assert facts["packages"]["numpy"] == metadata.version("numpy")
    assert facts["device"] in ("cpu", "cuda", "mps")
    assert facts["devices"][-1]["name"] == "cpu" and facts["devices"][-1]["cores"] >= 1
    ours = facts["caches"][0]
    assert ours["path"] == str(tmp_path / "cache")
    assert (ours["exists"], ours["writable"]) == (False, True) and ours["free_gb"] > 0
    assert facts["hub"]["reachable"] is False
    assert [item["required"] for item in facts["missing"] if "ViT-B-16/openai" in item["what"]] == [
        False
    ]


def test_what_is_missing_comes_with_its_fix_and_the_status(no_hub, monkeypatch):
    real = metadata.version

    def version(name):
        if name in ("pycocotools", "resvg-py"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    missing = {item["what"]: item for item in json.loads(done.stdout)["missing"]}
    assert missing["package pycocotools"]["fix"] == "pip install pycocotools"
    assert missing["package pycocotools"]["required"] is True
    assert "ovtool[demo]" in missing["the drawings of the demo collage"]["fix"]
    assert missing["the drawings of the demo collage"]["required"] is False


def test_bundled_weights_are_listed(no_hub):
    listed = {item["name"]: item for item in doctor.run()["weights"]}
    assert {"photo", "tiny", "tagger"} <= set(listed) and 5 < listed["tagger"]["size_mb"] < 7


def test_bundled_weights_that_are_absent_or_broken(no_hub, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.resources, "files", lambda package: tmp_path)
    whats = [item["what"] for item in doctor.run()["missing"] if item["required"]]
    assert whats == ["the bundled model photo", "the bundled model tiny"]
    assert any("tagger" in item["what"] for item in doctor.run()["missing"])
    (tmp_path / "tiny.safetensors").write_bytes(b"half")
    whats = [item["what"] for item in doctor.run()["missing"] if item["required"]]
    assert len(whats) == 3 and "tiny.safetensors" in whats[0]


def test_lines_for_people(no_hub, monkeypatch):
    monkeypatch.setattr(
        doctor,
        "run",
        lambda: {
            "device": "cpu",
            "packages": {"torch": "2", "resvg-py": None},
            "weights": [{"name": "tiny", "size_mb": 1.5}],
            "hub": {"reachable": False},
            "missing": [{"what": "wine", "fix": "buy some", "required": False}],
        },
    )
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "device: cpu",
        "packages:",
        "  torch: 2",
        "  resvg-py: none",
        "weights:",
        "  - name tiny; size_mb 1.5",
        "hub:",
        "  reachable: no",
        "missing:",
        "  - what wine; fix buy some; required no",
    ]


def test_the_hub_gets_three_seconds(monkeypatch):
    monkeypatch.setattr(sources, "_head", lambda url: time.sleep(30))
    monkeypatch.setattr(sources, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    start = time.monotonic()
    assert doctor.run()["hub"]["reachable"] is False
    assert time.monotonic() - start < 20

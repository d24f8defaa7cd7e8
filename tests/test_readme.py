"""The README cannot drift: its commands run, and it names every command there is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ovtool.cli.app import COMMANDS
from ovtool.datasets import collage_files, registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines of the README's shell blocks that call ovtool."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.search(r"(^|\| )ovtool ", line)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with all that the README's commands read."""
    folder = tmp_path_factory.mktemp("desk")
    collage_files.make(collage_files.CollageSpec("demo", 2, 1, 64), folder / "collage")
    data = registry.collage_in(folder / "collage", "demo")
    shutil.copytree(data.images, folder / "photos")
    shutil.copy(data.instances, folder / "instances.json")
    shutil.copy(data.captions, folder / "captions.json")
    shutil.copy(next((folder / "photos").iterdir()), folder / "photo.jpg")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "words.txt").write_text("teapot\napple;fruit\n")
    return folder


def test_there_are_commands_to_run():
    assert len(commands()) >= 6


@pytest.mark.parametrize("line", commands())
def test_command_of_the_readme_runs(line, desk):
    environment = {**os.environ, "OVTOOL_MODEL": "tiny"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for left in desk.glob("*.overlay.png"):
        left.unlink()
    for left in (*desk.glob("*.segments.json"), desk / "photos.json", desk / "listed.json"):
        left.unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_python_of_the_readme_runs(desk, monkeypatch):
    monkeypatch.chdir(desk)
    (desk / "photo.json").unlink(missing_ok=True)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert (desk / "photo.json").exists()


def test_every_command_is_in_the_readme():
    for name, _, _ in COMMANDS:
        assert f"`{name}" in README, name


def test_every_local_link_leads_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target

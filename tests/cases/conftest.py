"""What the cases share: a folder to work in, and the command line as a user starts it."""

import logging

import pytest

from ovtool.cli.errors import run


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty current folder; the model is the bundled one of drawings."""
    logger = logging.getLogger("ovtool")
    kept = logger.propagate, logger.handlers[:], logger.level
    monkeypatch.setenv("OVTOOL_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    logger.propagate, logger.handlers[:] = kept[:2]
    logger.setLevel(kept[2])


@pytest.fixture
def does(desk, capsys):
    """Runs a command line, and gives the exit status, stdout and stderr."""

    def command(line):
        status = run(line.split())
        said = capsys.readouterr()
        return status, said.out, said.err

    return command

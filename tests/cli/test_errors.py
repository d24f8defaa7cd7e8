"""Every way to fail: one line on stderr and the right exit status."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import typer

from ovtool import errors
from ovtool.cli import errors as cli_errors
from ovtool.cli.errors import report, run
from ovtool.errors import InputError, brief

ROOT = Path(__file__).parents[2]


def one_line(capsys) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    return lines[0]


@pytest.mark.parametrize(
    "error, status, line",
    [
        (errors.OvtoolError("it broke"), 1, "error: it broke"),
        (errors.InputError("a.jpg: no such file"), 1, "error: a.jpg: no such file"),
        (errors.OutputExistsError("x exists: --overwrite"), 1, "error: x exists: --overwrite"),
        (errors.UsageError("a class is empty"), 2, "error: a class is empty"),
        (errors.ModelError("unknown model 'x'"), 2, "error: unknown model 'x'"),
        (errors.MismatchError("two models"), 2, "error: two models"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 1, "aborted"),
        (
            FileNotFoundError(2, "No such file or directory", "a"),
            1,
            "error: a: No such file or directory",
        ),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
        (MemoryError(), 1, "error: out of memory; use fewer or smaller images at once"),
        (
            ValueError("two\n  lines"),
            1,
            "error: unexpected ValueError: two lines (set OVTOOL_DEBUG=1 for the traceback)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys, monkeypatch):
    monkeypatch.delenv("OVTOOL_DEBUG", raising=False)
    assert report(error) == status
    assert one_line(capsys) == line


def test_the_traceback_comes_with_ovtool_debug(capsys, monkeypatch):
    monkeypatch.setenv("OVTOOL_DEBUG", "1")
    try:
        raise errors.InputError("it broke")
    except errors.InputError as error:
        assert report(error) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("\nerror: it broke\n")


@pytest.mark.parametrize("value", ["", "0"])
def test_ovtool_debug_can_be_off(value, capsys, monkeypatch):
    monkeypatch.setenv("OVTOOL_DEBUG", value)
    assert report(ValueError("x")) == 1
    one_line(capsys)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["evalute"], ["No such command 'evalute'", "Did you mean 'evaluate'?", "`ovtool --help`"]),
        (["info", "--jsn", "x"], ["No such option: --jsn", "--json", "`ovtool info --help`"]),
        (["info"], ["Missing argument", "FILE", "`ovtool info --help`"]),
        (["cam"], ["Missing option '--labels'", "`ovtool cam --help`"]),
        (
            ["evaluate", "x", "--ground-truth", "y", "--metric", "recal"],
            ["--metric", "'recal'", "miou"],
        ),
        (["--nonsense"], ["No such option: --nonsense", "`ovtool --help`"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_usage_error_is_one_line_and_status_2(arguments, words, capsys):
    assert run(arguments) == 2
    line = one_line(capsys)
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_windows_expands_patterns_of_the_process_itself(monkeypatch):
    monkeypatch.setattr("sys.argv", ["ovtool", "segment", "~/a", "--out=~/b", "c~/d"])
    home = os.path.expanduser("~")
    given = ["segment", f"{home}/a", f"--out={home}/b", "c~/d"]
    assert cli_errors._given(None) == cli_errors._given(["segment", "~/a", "--out=~/b", "c~/d"])
    assert cli_errors._given(None) == given
    with monkeypatch.context() as windows:
        windows.setattr(cli_errors.os, "name", "nt")
        of_process, of_caller = cli_errors._given(None), cli_errors._given(["info"])
    assert of_process is None and of_caller == ["info"]


def test_help_and_version_are_no_errors(capsys):
    assert run(["--version"]) == 0
    assert run(["info", "-h"]) == 0
    assert capsys.readouterr().err == ""


def shell(command: str, **settings):
    program = f"{sys.executable} -m ovtool"
    return subprocess.run(
        ["bash", "-c", command.replace("ovtool", program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **settings,
    )


def test_a_closed_pipe_ends_with_141_and_no_word():
    done = shell("ovtool --help | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_an_error():
    done = shell("ovtool --help > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: No space left on device"]


def test_closed_stderr_does_not_hide_the_status():
    assert shell("ovtool info no-such-file 2>&-").returncode == 1
    assert shell("ovtool info no-such-file 2>&-").stdout == ""


INTERRUPTIBLE = textwrap.dedent(
    """
    import sys, time
    from ovtool.cli import app as frame, errors

    def wait() -> None:
        "Wait for the signal."
        print("ready", flush=True)
        time.sleep(60)

    frame.app = frame.program((frame.Row("wait", wait, "Wait."),))
    sys.exit(errors.run(["wait"]))
    """
)


def test_ctrl_c_ends_with_130_and_one_line():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "interrupted\n")


@pytest.mark.skipif(os.name == "nt", reason="signals are other there")
def test_ctrl_c_that_a_library_turns_into_an_error_of_its_own(capsys, monkeypatch):
    """As torch does while it takes a tensor out of a file."""

    class Command:
        def main(self, **named):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                raise ValueError("could not determine the shape") from None

    monkeypatch.setattr(typer.main, "get_command", lambda app: Command())
    assert run([]) == 130
    assert one_line(capsys) == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["x" * 5000, "long word " * 500, "猫" * 5000])
def test_what_a_message_quotes_is_short(name, tmp_path, capsys):
    image = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}
    mask = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    for file, category in (("p.json", name), ("t.json", "cow")):
        sections = {"annotations": [mask], "categories": [{"id": 1, "name": category}]}
        (tmp_path / file).write_text(json.dumps({"images": [image], **sections}))
    assert run(["evaluate", str(tmp_path / "p.json"), "--ground-truth", str(tmp_path / "t.json")])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 2000
    assert "have no class in common" in said and said.rstrip().endswith("?")  # the mend
    assert run(["segment", name, "--classes", "cow"])
    assert 20 < len(capsys.readouterr().err) < 2000


def test_the_parts_of_a_message_that_stay():
    assert brief("no such file: a/b c.jpg") == "no such file: a/b c.jpg"
    path = "/folder" * 30 + "/a.jpg"
    assert brief(f"no such file: {path}") == f"no such file: {path}"
    long = brief(f"{'f/' * 400}a.jpg exists; replace it")
    assert long.startswith("f/f/") and long.endswith("/a.jpg exists; replace it")
    assert str(InputError("y" * 999)) == brief("y" * 999) != "y" * 999


def test_the_home_folder_where_no_shell_puts_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert run(["info", "~/gone.json"]) == 1
    assert run(["segment", "--coco=~/gone.json", "--images", "~/x", "--classes", "cow"]) == 1
    assert capsys.readouterr().err.count(f"no such file: {tmp_path}/gone.json") == 2

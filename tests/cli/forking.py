"""Runs commands, one a line of stdin, each in a forked process; answers with its status.

A line is JSON: `folder`, `arguments`, and `kill_when`, one of
- null: the command runs to its end;
- {"files": N, "delay": SECONDS}: it is killed as soon as the folder has N files, and a moment more;
- {"call": "MODULE:NAME" or "MODULE:CLASS.NAME", "after": bool, "count": N}: it kills itself at the N-th
  call of that function, before it or after it; with "exists": NAME in place of the count, after the first
  call that leaves that file.
"""

import contextlib
import functools
import importlib
import json
import operator
import os
import signal
import sys
import time
from pathlib import Path


def dies_at(moment):
    """This process kills itself at the N-th call of a function."""
    module, _, path = moment["call"].partition(":")
    owner, _, name = path.rpartition(".")
    holder = importlib.import_module(module)
    holder = operator.attrgetter(owner)(holder) if owner else holder
    inner, calls = getattr(holder, name), []

    @functools.wraps(inner)
    def counted(*arguments, **named):
        calls.append(name)
        is_last = len(calls) == moment.get("count")
        if is_last and not moment["after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = inner(*arguments, **named)
        if is_last or ("exists" in moment and Path(moment["exists"]).exists()):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(holder, name, counted)


def work(job, modules):
    """The command, in the forked process; the names of what it imported go into the pipe."""
    os.chdir(job["folder"])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the other process answers on stdout
    if "call" in (job["kill_when"] or ()):
        dies_at(job["kill_when"])
    from ovtool.cli.errors import run

    status = run(job["arguments"])
    with open(modules, "w") as pipe:
        pipe.write(" ".join(sys.modules))
    os._exit(status)


def kill_when(child, folder, moment):
    """Waits for the moment, or for the end of the child."""
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if sum(path.is_file() for path in folder.rglob("*")) >= moment["files"]:
            time.sleep(moment.get("delay", 0))
            os.kill(child, signal.SIGKILL)
            return
        time.sleep(0.0005)


def main():
    for line in sys.stdin:
        job = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            work(job, writer)
        os.close(writer)
        moment = job["kill_when"]
        if moment and "call" not in moment:
            kill_when(child, Path(job["folder"]), moment)
        with open(reader) as pipe:
            for name in pipe.read().split():  # the next process has them from its start
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

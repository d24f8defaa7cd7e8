"""Programs without their start of seconds: a process that has imported everything forks for each.

    python -P fork_server.py SOCKET

A client (`CLIENT`) hands over its words, folder, environment and open files, and gets the exit status. One
called `ovtool` runs that, any other the script that its first word names. Several may run at once, as in a
pipe.
"""

import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys

CLIENT = """#!{python} -IS
import json, os, socket, sys
job = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as link:
    link.connect({socket!r})
    socket.send_fds(link, [b"%8d" % len(job)], [0, 1, 2])
    link.sendall(job)
    sys.exit(int(link.recv(8) or 1))
"""


def work(link):
    """The program of a client, in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(link, 8, 3)
    with link.makefile("rb") as words:
        (name, *arguments), folder, environment = json.loads(words.read(int(size)))
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if os.path.basename(name) == "ovtool":
        from ovtool.cli.errors import run

        status = run(arguments)
    else:
        sys.argv, status = arguments, 0
        runpy.run_path(arguments[0], run_name="__main__")
    sys.stdout.flush()
    link.sendall(b"%d" % status)


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    from ovtool import stages

    for name in ("open_clip", "ovtool.models.maskformer"):
        importlib.import_module(name)
    for module in pkgutil.iter_modules(stages.__path__, "ovtool.stages."):
        importlib.import_module(module.name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        while True:
            link, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                try:
                    work(link)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                finally:
                    os._exit(1)
            link.close()


if __name__ == "__main__":
    main()

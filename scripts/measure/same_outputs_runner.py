"""Runs commands of ovtool, a process each, from one that has imported the libraries already.

Started by `same_outputs.py` with a side's files on `PYTHONPATH`. Reads a line of JSON for each command on
stdin, `{"words": [...], "stdout": PATH, "stderr": PATH, "seconds": N}`, and answers with its exit status on a line of
stdout. The libraries take longer to import than most commands here take to run; ovtool itself is imported by each command.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
from typing import Any

LIBRARIES = (
    "numpy", "PIL.Image", "scipy.ndimage", "skimage.segmentation", "pycocotools.mask", "matplotlib.figure",
    "torch", "torchvision", "timm", "open_clip", "safetensors.torch", "spacy", "transformers", "tqdm", "typer",
)  # fmt: skip


def main() -> None:
    """Answers requests until stdin ends."""
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    while line := sys.stdin.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            sys.exit(command(request))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def command(request: dict[str, Any]) -> int:
    """Runs one command in this process, whose standard streams become those of the request."""
    signal.alarm(request["seconds"])  # ends the process, with status -14
    for descriptor, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        flags = os.O_RDWR if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags, 0o644), descriptor)
    sys.argv = ["ovtool", *request["words"]]
    entry = importlib.import_module("ovtool.__main__")
    return int(entry.main())


if __name__ == "__main__":
    main()

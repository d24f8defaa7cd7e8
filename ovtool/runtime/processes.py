"""The engine of several processes on one machine: the parts are shared out, the first free process takes the next.

The work, with its models, travels to each process once, as bytes through a pipe that nobody else writes
to. A process computes with as many threads as this one, so that it makes the same bytes.
"""

from __future__ import annotations

import copyreg
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

from ovtool.errors import OvtoolError
from ovtool.formats.mask_store import Masks
from ovtool.formats.parts import Part
from ovtool.formats.tensors import Anew
from ovtool.runtime.engine import Advance, Task, in_turn

_logger = logging.getLogger("ovtool")
_GRACE = 10.0  # seconds in which a process that is to end removes what it has half written
_CAPTURING = "transformers.utils.output_capturing"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Processes:
    """An engine of `workers` processes."""

    workers: int

    def __call__(self, parts: Sequence[Part], task: Task, advance: Advance) -> None:
        """Does the parts; whatever stops it ends all processes.

        Raises:
            OvtoolError: a process was killed.
            Exception: what a part raised.
        """
        count = min(self.workers, len(parts))
        say_idle(self.workers, len(parts))
        if count < 2:
            in_turn(parts, task, advance)
            return
        left = iter(parts)
        with _started(count, task) as links:
            busy = {link.pipe: link for link in links if _give(link, next(left, None))}
            while busy:
                for pipe in connection.wait(list(busy)):
                    link = busy[pipe]  # type: ignore[index]
                    message = link.received()
                    if isinstance(message, int):
                        advance(message)
                    elif isinstance(message, logging.LogRecord):
                        _logger.handle(message)
                    elif isinstance(message, BaseException):
                        raise message
                    elif not _give(link, next(left, None)):
                        del busy[link.pipe]


def say_idle(workers: int, parts: int) -> None:
    """Warns where there is not a part for every worker."""
    if 0 < parts < workers:
        _logger.warning(
            "%d workers share %d part%s; a smaller --part-size gives each of them one",
            workers, parts, "" if parts == 1 else "s",
        )  # fmt: skip


def environment() -> tuple[int, int]:
    """What a worker must have as this process has it: the number of threads, and the level of the log."""
    import torch

    return torch.get_num_threads(), _logger.getEffectiveLevel()


def prepare(threads: int, level: int, send: Callable[[Any], None]) -> None:
    """Makes a worker compute with so many threads, and hand what it logs to `send`."""
    import torch

    torch.set_num_threads(threads)
    _logger.handlers[:] = [_Sending(send)]
    _logger.propagate = False
    _logger.setLevel(level)


def packed(task: Task, is_near: bool = True) -> bytes:
    """The work as bytes, for `unpacked` in another process; what is defined inside functions travels too. Where
    that may be of another machine (`is_near` False), so do masks and tensors that lie in a file of this one."""
    from srsly import cloudpickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, Masks) and not is_near:
                return Masks, (), value.whole()
            if isinstance(value, Anew) and not is_near:
                return dict, (dict(value),)
            return super().reducer_override(value)

    recorded: dict[str, Any] = {}
    capturing = sys.modules.get(_CAPTURING)
    if capturing is not None:  # its models find there which outputs are recorded, and by what
        recorded = dict(getattr(capturing, "_CAN_RECORD_REGISTRY", {}))
        collector = getattr(capturing, "_active_collector", None)
        if collector is not None:
            copyreg.pickle(type(collector), lambda _: "_active_collector")
    work = io.BytesIO()
    Pickler(work).dump((recorded, task))
    return work.getvalue()


def unpacked(work: bytes) -> Task:
    """The work that `packed` made bytes of."""
    from srsly import cloudpickle

    recorded, task = cloudpickle.loads(work)
    if recorded:
        dict.update(importlib.import_module(_CAPTURING)._CAN_RECORD_REGISTRY, recorded)
    return cast(Task, task)


@dataclass(frozen=True)
class _Link:
    """A process, and the pipe to it."""

    process: BaseProcess
    pipe: Connection

    def send(self, message: object) -> None:
        """Sends a message, or the bytes of the work. Raises OvtoolError where the process is gone."""
        try:
            if isinstance(message, bytes):
                self.pipe.send_bytes(message)
            else:
                self.pipe.send(message)
        except OSError:
            raise self._gone() from None

    def received(self) -> Any:
        """The next message. Raises OvtoolError where the process is gone."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None

    def _gone(self) -> OvtoolError:
        self.process.join(_GRACE)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else "ended"
        return OvtoolError(
            f"a worker process {how}; run the command again with --resume, and with fewer --workers if "
            "memory ran out"
        )


def _give(link: _Link, part: Part | None) -> bool:
    """Gives a process its next part; whether there is one."""
    if part is not None:
        link.send(part)
    return part is not None


@contextmanager
def _started(count: int, task: Task) -> Iterator[list[_Link]]:
    """Processes that have the work and wait for parts; they are gone when the block ends."""
    work, links = packed(task), []
    try:
        with _without_interrupts():  # Ctrl-C reaches this process, which ends the others
            for number in range(count):
                links.append(_start(number))
        for link in links:
            link.send(work)
        yield links
    finally:
        for link in links:
            link.process.terminate()
        for link in links:
            link.process.join(_GRACE)
            link.process.kill()
            link.process.join()


def _start(number: int) -> _Link:
    context = get_context("spawn")  # a fork of a process with threads may hang
    ours, theirs = context.Pipe()
    arguments = (theirs, *environment(), _visible_gpus(number))
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    return _Link(process, ours)


def _visible_gpus(number: int) -> str | None:
    """The GPUs that a process sees: all, beginning with one of its own; None where there is only one."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return None
    given = os.environ.get(_VISIBLE)
    names = given.split(",") if given else [str(index) for index in range(count)]
    first = number % len(names)
    return ",".join(names[first:] + names[:first])


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started inside ignore Ctrl-C from their first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, threads: int, level: int, gpus: str | None) -> None:
    """The other process: gets the work, then parts, and answers with counts, messages and errors."""
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpus is not None:
        os.environ[_VISIBLE] = gpus
    try:
        prepare(threads, level, pipe.send)
        task = unpacked(pipe.recv_bytes())
        while True:
            part: Part = pipe.recv()
            task(part, pipe.send)
            pipe.send(part)
    except (EOFError, BrokenPipeError):
        return  # nobody is left to answer to
    except Exception as error:
        pipe.send(sendable(error))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already


def sendable(error: BaseException) -> BaseException:
    """An error as it can travel: ours as they are, others by their text."""
    if isinstance(error, OvtoolError | OSError | MemoryError):
        return error
    return RuntimeError(f"{type(error).__name__} in a worker process: {error}")


def _leave(signal_number: int, frame: object) -> None:
    raise SystemExit(128 + signal_number)


def _end_with_parent() -> None:
    """Ends this process when the one that started it was killed."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


class _Sending(logging.Handler):
    """Hands each message of the log on, as plain text."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a record without what cannot travel."""
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self._send(record)

"""The engine of a cluster of Ray: actors that have the work and its models take one part after another.

Ray starts an actor anew when its process or its machine is lost, and gives it its part again. Images and
the folder of parts lie on a file system that all machines share.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from ovtool.errors import OvtoolError, UsageError
from ovtool.formats.parts import Part
from ovtool.runtime.engine import Advance, Task
from ovtool.runtime.processes import environment, packed, prepare, say_idle, sendable, unpacked

_logger = logging.getLogger("ovtool")
_RETRIES = 3  # how often an actor is started anew, and a cluster of this machine that did not come up in time
_PATIENCE = 60.0  # seconds without an actor, after which this is said


@dataclass(frozen=True)
class Cluster:
    """An engine of Ray.

    Attributes:
        workers: the number of actors, fewer where there are fewer parts.
        address: of the cluster; None for one that runs here, else one that is started for this run.
        on_gpu: whether each actor needs a GPU.
    """

    workers: int
    address: str | None
    on_gpu: bool

    def __call__(self, parts: Sequence[Part], task: Task, advance: Advance) -> None:
        """Does the parts; whatever stops it ends all actors.

        Raises:
            UsageError: Ray is not installed, or the cluster is not reached.
            OvtoolError: actors are lost again and again.
            Exception: what a part raised.
        """
        say_idle(self.workers, len(parts))
        if not parts:
            return
        with _connected(self.address) as ray:
            work = [ray.put(packed(task, is_near=False))]  # in a list, so an actor fetches it once
            actors = _actors(ray, min(self.workers, len(parts)), self.on_gpu)
            try:
                _share(ray, actors, work, parts, advance)
            except ray.exceptions.RayError as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise OvtoolError(
                    f"a worker of Ray was lost ({reason}); run the command again with --resume"
                ) from error
            finally:
                with redirect_stdout(io.StringIO()):  # of tasks that are cancelled
                    for actor in actors:
                        ray.kill(actor)


def _share(
    ray: Any, actors: Sequence[Any], work: Sequence[Any], parts: Sequence[Part], advance: Advance
) -> None:
    """Gives each actor that is up its next part until all are done; those that no machine has room for wait."""
    left, undone = iter(parts), len(parts)
    running: dict[Any, tuple[Any, Part | None]] = {
        actor.is_up.remote(): (actor, None) for actor in actors
    }
    if not ray.wait(list(running), timeout=_PATIENCE)[0]:
        _logger.warning(
            "no worker has begun after %.0f s, since the cluster has no room for it, or is slow; waiting",
            _PATIENCE,
        )
    while undone:
        (ready, *_), _ = ray.wait(list(running))
        actor, done = running.pop(ready)
        for message in ray.get(ready):
            if isinstance(message, BaseException):
                raise message
            _logger.handle(message)
        if done is not None:
            undone -= 1
            advance(done.stop - done.start)
        part = next(left, None)
        if part is None:  # makes room for one that waits for it, or that was lost and begins anew
            ray.kill(actor)
        else:
            running[actor.do.remote(work, part)] = (actor, part)


def _actors(ray: Any, count: int, on_gpu: bool) -> list[Any]:
    threads, level = environment()
    nodes = (node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    remote = ray.remote(
        num_cpus=min(
            threads, max(nodes, default=0) or threads
        ),  # more would be waited for for ever
        num_gpus=int(on_gpu),
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )(Actor)
    return [remote.remote(threads, level, os.getcwd()) for _ in range(count)]


class Actor:
    """A process of the cluster that does parts.

    Args:
        threads: how many compute.
        level: of the log.
        folder: where relative paths start.
    """

    def __init__(self, threads: int, level: int, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        self._said: list[Any] = []
        prepare(threads, level, self._said.append)
        self._task: Task | None = None

    def is_up(self) -> list[Any]:
        """Nothing; that it comes back says that the actor has a place."""
        return []

    def do(self, work: Sequence[Any], part: Part) -> list[Any]:
        """Does a part; what was logged, and behind it the error that stopped it. `work` is a list of the
        reference to the task as bytes."""
        self._said.clear()
        try:
            if self._task is None:
                import ray

                self._task = unpacked(ray.get(work[0]))
            self._task(part, lambda images: None)
        except Exception as error:
            return [*self._said, sendable(error)]
        return list(self._said)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, and no longer when the block ends, unless it was before."""
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--engine ray needs the package ray; pip install 'ovtool[ray]', or leave --engine out"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, address)
    try:
        with redirect_stdout(sys.stderr):  # Ray tells there what it lost; stdout is for data
            yield ray
    finally:
        with redirect_stdout(io.StringIO()):
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Connects to a cluster, or starts one. Raises UsageError."""
    for attempt in range(1, 1 + (_RETRIES if address is None else 1)):
        try:
            with redirect_stdout(sys.stderr):
                ray.init(
                    address=address,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        except (
            Exception
        ) as error:  # of no class where a node does not start in time, which is 30 seconds
            ray.shutdown()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if attempt < _RETRIES and address is None and "timed out" in reason:
                _logger.warning("Ray did not start in time (%s); trying again", reason)
                continue
            place = address or "this machine"
            raise UsageError(
                f"no cluster of Ray is reached at {place} ({reason}); look at --ray-address"
            ) from None

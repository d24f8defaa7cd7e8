"""How a stage reports its progress: its caller gives it a function that opens a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# (total, description) opens a bar, whose callback takes the steps done since the last call
Progress = Callable[[int | None, str], AbstractContextManager[Callable[..., None]]]


@contextmanager
def no_progress(total: int | None, description: str) -> Iterator[Callable[..., None]]:
    """A progress bar that is not displayed."""
    yield lambda n=1: None

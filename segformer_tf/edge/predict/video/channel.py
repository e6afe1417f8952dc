"""Stages of work in threads of their own, with a bounded number of items between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE = 5.0  # seconds that a reader waits for a writer to notice that it is gone


class Channel(Generic[T]):
    """A queue of bounded length between two threads, which either end may close.

    Args:
        size: items that it holds at most.
        newest: whether a full one drops its oldest item for a new one, instead of letting the writer wait.

    Attributes:
        dropped: items that were dropped so.
    """

    def __init__(self, size: int, *, newest: bool = False) -> None:
        self.dropped = 0
        self._size, self._newest = size, newest
        self._items: deque[T] = deque()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._changed = Condition()

    def put(self, item: T) -> bool:
        """Add an item once there is room; False if the reader has closed the channel."""
        with self._changed:
            if self._newest and len(self._items) == self._size:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._size)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def get(self, timeout: float | None = None) -> T | None:
        """The next item, or None if the writer has ended; raises the writer's error, or TimeoutError after seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended or self._closed, timeout):
                raise TimeoutError
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            if self._error:
                raise self._error
            return None

    def end(self, error: BaseException | None = None) -> None:
        """By the writer: there will be no more items, perhaps because of an error."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """By the reader: no more items are wanted."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


@contextmanager
def ahead(items: Generator[T, None, None], size: int, *, newest: bool = False) -> Iterator[Channel[T]]:
    """Run a generator in a thread, ahead of the reader of the channel by `size` items and the one in hand.

    The generator is closed in its thread. One that hangs is left behind.
    """
    channel: Channel[T] = Channel(size, newest=newest)

    def run() -> None:
        try:
            with closing(items):
                for item in items:
                    if not channel.put(item):
                        break
        except BaseException as error:
            channel.end(error)
        else:
            channel.end()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield channel
    finally:
        channel.close()
        thread.join(_PATIENCE)


@contextmanager
def behind(use: Callable[[T], None], size: int) -> Iterator[Channel[T]]:
    """Call `use` in a thread with what is put in the channel, of which `size` items may wait.

    Leaving waits until all items are used, and raises the error of `use`, if any; `put` is False after one.
    """
    channel: Channel[T] = Channel(size)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            while (item := channel.get()) is not None:
                use(item)
        except BaseException as error:
            errors.append(error)
            channel.close()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield channel
    except BaseException:
        channel.close()
        raise
    finally:
        channel.end()
        thread.join()
    if errors:
        raise errors[0]

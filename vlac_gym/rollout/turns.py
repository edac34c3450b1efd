"""How the threads of a pipelined rollout wait for each other: `Turns`."""

__all__ = ["Aborted", "Turns"]

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Aborted(Exception):
    """The rollout is over for everybody; raised in the threads that wait."""


class Turns(Generic[Item]):
    """Turns in a fixed order, and one lane per group from its thread to the reader.

    Args:
        num_groups: Number of lanes.
        capacity: Items that a lane holds before its thread waits for the reader.
    """

    def __init__(self, num_groups: int, capacity: int) -> None:
        self._changed = threading.Condition()
        self._turn = 0
        self._lanes: list[deque[Item]] = [deque() for _ in range(num_groups)]
        self._capacity = capacity
        self._errors: dict[int, BaseException] = {}
        self._is_aborted = False

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Waits until turns 0 .. number - 1 are over, and ends this one on leaving.

        Raises:
            Aborted: The rollout ended in the meantime.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_aborted or self._turn == number)
            if self._is_aborted:
                raise Aborted
        yield
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def deliver(self, group: int, item: Item) -> None:
        """Puts an item in the group's lane; waits while it is full.

        Raises:
            Aborted: The rollout ended in the meantime.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_aborted or len(self._lanes[group]) < self._capacity)
            if self._is_aborted:
                raise Aborted
            self._lanes[group].append(item)
            self._changed.notify_all()

    def fail(self, group: int, error: BaseException) -> None:
        """Ends the rollout because of a group; items already delivered can still be read."""
        with self._changed:
            self._errors[group] = error
            self._is_aborted = True
            self._changed.notify_all()

    def read(self, group: int) -> Item:
        """The next item of the group's lane; waits for it.

        Raises:
            BaseException: What a group's thread failed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_aborted or bool(self._lanes[group]))
            if not self._lanes[group]:
                raise self._errors.get(group) or next(iter(self._errors.values()), Aborted())
            item = self._lanes[group].popleft()
            self._changed.notify_all()
            return item

    def abort(self) -> None:
        """Ends the rollout; threads that wait, or will wait, stop."""
        with self._changed:
            self._is_aborted = True
            self._changed.notify_all()

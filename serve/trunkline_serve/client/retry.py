"""When a call is made again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

from trunkline.errors import Overloaded, TrunklineError, Unavailable

# Calls that met these were not begun, or may be begun again; nothing else is worth a try.
_PASSING = (Unavailable, Overloaded)
_FIRST_BOUND = 0.1  # seconds
_LAST_BOUND = 5.0


class Attempts:
    """The tries of one call.

    Waits are drawn evenly from 0 to a bound that doubles: clients that were refused together do not
    come back together. What the server asks for is added.

    Args:
        timeout: Seconds for all tries and the waits between them.
        retries: Most tries after the first.
    """

    def __init__(self, timeout: float, retries: int) -> None:
        self._end = monotonic() + timeout
        self._retries = retries
        self._bound = _FIRST_BOUND

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._end - monotonic()

    def pause(self, error: TrunklineError) -> float:
        """Returns the seconds to wait before the next try.

        Raises:
            TrunklineError: The error given: a new try makes no sense, or there is no time for it.
        """
        least = error.retry_after if isinstance(error, Overloaded) else 0.0
        wait = least + random.uniform(0, self._bound)
        if not isinstance(error, _PASSING) or not self._retries or wait >= self.left:
            raise error from None
        self._retries -= 1
        self._bound = min(2 * self._bound, _LAST_BOUND)
        return wait


class Renewals:
    """When a stream that broke is opened again: as often as a call is tried, anew after an answer.

    Args:
        timeout: Seconds for all of it; None for no end.
        attempts: Makes the tries of a call.
    """

    def __init__(self, timeout: float | None, attempts: Callable[[], Attempts]) -> None:
        self._end = None if timeout is None else monotonic() + timeout
        self._made = attempts
        self._attempts: Attempts | None = None

    @property
    def left(self) -> float | None:
        """Seconds until the end."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def answered(self) -> None:
        """Learns that the stream is of use."""
        self._attempts = None

    def pause(self, error: TrunklineError) -> float:
        """Returns the seconds to wait before the next stream.

        Raises:
            TrunklineError: The error given: another stream makes no sense.
        """
        self._attempts = self._attempts or self._made()
        return self._attempts.pause(error)

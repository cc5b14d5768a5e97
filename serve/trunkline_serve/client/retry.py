"""When a call is made again, and after how long."""

from __future__ import annotations

import random
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

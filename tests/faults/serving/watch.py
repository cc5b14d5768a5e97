"""How long an event loop works on one thing, and all others wait."""

import asyncio
from time import thread_time

BUDGET = 0.05  # seconds of CPU time that the loop's thread takes without a look at what else waits
TICK = 0.002


class Watch:
    """Sees how long the loop's thread works between two turns of a task of its own."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def look(self) -> None:
        last = thread_time()
        while True:
            await asyncio.sleep(TICK)
            now = thread_time()
            self.longest = max(self.longest, now - last)
            last = now


async def begun(watch: Watch) -> "asyncio.Task[None]":
    return asyncio.create_task(watch.look())


async def ended(looking: "asyncio.Task[None]") -> None:
    await asyncio.sleep(2 * TICK)
    looking.cancel()

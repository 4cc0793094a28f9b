"""Generators: each item leaves as soon as it is yielded."""

import asyncio
from collections.abc import AsyncIterator, Iterator


def countdown(start: int = 3) -> Iterator[int]:
    """Counts down to 1."""
    yield from range(start, 0, -1)


async def squares(count: int, seconds: float = 0.0) -> AsyncIterator[dict]:
    """The first squares, one each so many seconds."""
    for number in range(1, count + 1):
        await asyncio.sleep(seconds)
        yield {"number": number, "square": number * number}


def fragile(good: int) -> Iterator[str]:
    """So many items, then an error."""
    for number in range(good):
        yield f"item {number + 1}"
    raise RuntimeError("out of items")

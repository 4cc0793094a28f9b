"""Numbers as people say them, by the third-party package humanize."""

import humanize


def size(count: int, binary: bool = False) -> str:
    """A number of bytes in the unit that fits."""
    return humanize.naturalsize(count, binary=binary)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd."""
    return humanize.ordinal(number)

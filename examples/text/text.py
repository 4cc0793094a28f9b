"""Functions on text. Nothing here knows that it is called over HTTP."""

import textwrap
from collections import Counter


def merge(a: str, b: str) -> str:
    """Two strings as one."""
    return a + b


def wrap(text: str, width: int = 72, indent: str = "") -> list[str]:
    """The lines of a paragraph, none longer than width."""
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def top_words(text: str, count: int = 3) -> dict[str, int]:
    """The most frequent words and how often each occurs."""
    words = (word.strip(".,;:!?\"'()").lower() for word in text.split())
    return dict(Counter(filter(None, words)).most_common(count))


def join(*parts: str, separator: str = " ") -> str:
    """Any number of strings as one."""
    return separator.join(parts)

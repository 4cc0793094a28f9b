"""Figures: the Python half of an app in two languages."""

import heapq
import statistics


def summary(values: list[float]) -> dict[str, float]:
    """Mean, median and standard deviation."""
    return {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "deviation": statistics.pstdev(values),
    }


def merge(a: list[float], b: list[float]) -> list[float]:
    """Two sorted lists as one sorted list."""
    return list(heapq.merge(a, b))

"""Tables in Markdown and the circumstances of a run."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from . import ROOT, openloop, peers
from .wrk import Run

# Above this share of one core, something else ran and the round is marked.
NOISY = 0.10


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (cell.ljust(width) if index == 0 else cell.rjust(width)
                        for index, (cell, width) in enumerate(zip(cells, widths)))
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":"
                          for index, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def comparison(runs: dict[str, list[Run]], baseline: str) -> str:
    """Medians per server, with the ratio to the baseline taken round by round."""
    head = ["server", "requests/s", "least - most", f"of {baseline}", "by round", "p50 ms", "p99 ms", "p99.9 ms",
            "errors", "CPU µs/request", "RSS MiB", "PSS MiB"]
    return table(head, [_row(name, rounds, runs.get(baseline)) for name, rounds in runs.items()])


def _row(name: str, rounds: list[Run], baseline: list[Run] | None) -> list[str]:
    speeds = [run.per_second for run in rounds]
    shares = ratios(rounds, baseline)
    return [
        name,
        f"{median(speeds):,.0f}",
        f"{min(speeds):,.0f} - {max(speeds):,.0f}",
        ratio(shares),
        " ".join(shown(share) for share in shares) or "-",
        *(milliseconds(median(getattr(run, field) for run in rounds)) for field in ("p50_us", "p99_us", "p999_us")),
        f"{sum(run.errors for run in rounds)}",
        f"{median(run.cpu_us for run in rounds):,.1f}",
        mebibytes(rounds[-1].rss_bytes),
        mebibytes(rounds[-1].pss_bytes),
    ]


def summary(runs: dict[str, list[Run]], baseline: str) -> str:
    """The few columns that matter most."""
    rows = [[row[0], row[1], row[3], row[6], row[8], row[9]]
            for row in (_row(name, rounds, runs.get(baseline)) for name, rounds in runs.items())]
    return table(["server", "requests/s", f"of {baseline}", "p99 ms", "errors", "CPU µs/request"], rows)


def open_loads(runs: dict[str, openloop.Run]) -> str:
    """One row per server under a constant rate of arrivals."""
    head = ["server", "due/s", "answered/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "refused", "errors",
            "no answer", "generator late, p99 ms"]
    rows = []
    for name, run in runs.items():
        times = run.latency
        rows.append([
            name,
            f"{run.load.rate:,.0f}",
            f"{run.goodput:,.0f}",
            *(milliseconds(time) for time in (times.p50, times.p90, times.p99, times.p999, times.max)),
            f"{run.refused:,}",
            f"{run.bad:,}",
            f"{run.unanswered:,}",
            milliseconds(run.lag.p99),
        ])
    return table(head, rows)


def milliseconds(microseconds: float) -> str:
    """With two decimals, and none from 100 on."""
    return f"{microseconds / 1e3:,.0f}" if microseconds >= 1e5 else f"{microseconds / 1e3:.2f}"


def mebibytes(count: int | None) -> str:
    """`-` where the figure could not be had."""
    return "-" if count is None else f"{count / 2**20:.0f}"


def ratio(shares: Sequence[float]) -> str:
    """The median; `-` where there is nothing to compare with."""
    return shown(median(shares)) if shares else "-"


def shown(share: float) -> str:
    """A small share with one digit more."""
    return f"{share:.2f}" if share >= 0.1 else f"{share:.3f}"


def ratios(rounds: list[Run], baseline: list[Run] | None) -> list[float]:
    """Requests per second over the baseline's of the same round."""
    return [run.per_second / base.per_second for run, base in zip(rounds, baseline or []) if base.requests]


def noise(runs: dict[str, list[Run]]) -> str:
    """Names the rounds in which something else took CPU time."""
    loud = [
        f"{name} round {number} ({run.other_load:.0%} of a core)"
        for name, rounds in runs.items()
        for number, run in enumerate(rounds, 1)
        if run.other_load > NOISY
    ]
    return f"Something else ran beside: {', '.join(loud)}." if loud else "Nothing else ran beside."


def circumstances() -> dict[str, str]:
    """Machine, commit and versions of what is always used."""
    dirty = " with local changes" if _said("git", "status", "--porcelain", "--untracked-files=no") else ""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": f"{peers.cores()} cores of {model}, {memory / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "commit": (_said("git", "rev-parse", "--short", "HEAD") or "unknown") + dirty,
        "date": datetime.date.today().isoformat(),
        "wrk": _said("wrk", "-v").split("\n", 1)[0].removeprefix("wrk ").split(" Copyright")[0],
    }


def version(*command: str) -> str:
    """What a program says its version is, without its name."""
    return _said(*command).split("\n", 1)[0].split(" ")[-1].rpartition("/")[2]


def _said(*command: str) -> str:
    try:
        finished = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return (finished.stdout or finished.stderr).strip()

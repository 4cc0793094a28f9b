"""Tables in Markdown and the circumstances of a run."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from . import ROOT
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
    head = ["server", "requests/s", f"of {baseline}", "by round", "p50 ms", "p99 ms", "errors", "CPU µs/request", "RSS MiB"]
    rows = []
    for name, rounds in runs.items():
        shares = ratios(rounds, runs.get(baseline))
        rows.append([
            name,
            f"{median(run.per_second for run in rounds):,.0f}",
            f"{median(shares):.2f}" if shares else "-",
            " ".join(f"{share:.2f}" for share in shares) or "-",
            f"{median(run.p50_us for run in rounds) / 1e3:.2f}",
            f"{median(run.p99_us for run in rounds) / 1e3:.2f}",
            f"{sum(run.errors for run in rounds)}",
            f"{median(run.cpu_us for run in rounds):.1f}",
            f"{rounds[-1].rss_bytes / 2**20:.0f}",
        ])
    return table(head, rows)


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


def circumstances(fnmesh: Path | None) -> str:
    """Machine, commit and versions."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    dirty = " with local changes" if _said("git", "status", "--porcelain", "--untracked-files=no") else ""
    facts = {
        "machine": f"{len(list(Path('/sys/devices/system/cpu').glob('cpu[0-9]*')))} cores of {model}",
        "kernel": platform.release(),
        "commit": _said("git", "rev-parse", "--short", "HEAD") + dirty,
        "fnmesh": _said(str(fnmesh), "--version") if fnmesh else "not run",
        "nginx": _said("nginx", "-v"),
        "wrk": _said("wrk", "-v").split("\n", 1)[0].split(" Copyright")[0],
        "python": _said("python3", "--version"),
        "node": _said("node", "--version"),
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _said(*command: str) -> str:
    finished = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    return (finished.stdout or finished.stderr).strip()

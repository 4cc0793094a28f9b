"""What fnmesh has to reach beside the others, as ratios within one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .wrk import Run

Runs = dict[str, list[Run]]
OURS = ("fnmesh-python", "fnmesh-node")


@dataclass(frozen=True)
class Bar:
    """One demand; `measured` is None where what it compares was not run."""

    what: str
    wanted: str
    measured: float | None
    met: bool | None

    @property
    def row(self) -> list[str]:
        """Of the table of bars."""
        measured = "not measured" if self.measured is None else f"{self.measured:.2f}"
        return [self.what, self.wanted, measured, {None: "-", True: "yes", False: "**no**"}[self.met]]


def all_bars(closed: dict[int, Runs]) -> list[Bar]:
    """Every bar, for the figures by number of connections."""
    runs = closed.get(64, {})
    bars = [
        at_least(runs, "fnmesh-python", "nginx", 0.82),
        at_least(runs, "fnmesh-node", "nginx", 0.75),
        at_least(runs, "fnmesh-python", "deno", 1.0),
    ]
    for other, times in [("flask-gunicorn", 15), ("express", 10), ("fastify", 2), ("workerd", 4)]:
        bars += [at_least(runs, ours, other, times) for ours in OURS]
    bars.append(at_most(runs, "fnmesh-python", "nginx", 1.35, "CPU per request", lambda run: run.cpu_us))
    bars += [at_most(runs, ours, "nginx", 1.0, "p99", lambda run: run.p99_us) for ours in OURS]
    bars += [without_errors(closed.get(256, {}), ours) for ours in OURS]
    return bars


def at_least(runs: Runs, ours: str, other: str, limit: float) -> Bar:
    """Requests per second over those of another server."""
    measured = middle(runs, ours, other, lambda run: run.per_second)
    return Bar(f"requests/s of {ours} over {other}, 64 connections", f"at least {limit:g}", measured,
               None if measured is None else measured >= limit)


def at_most(runs: Runs, ours: str, other: str, limit: float, what: str, figure: Callable[[Run], float]) -> Bar:
    """Some cost over that of another server."""
    measured = middle(runs, ours, other, figure)
    return Bar(f"{what} of {ours} over {other}, 64 connections", f"at most {limit:g}", measured,
               None if measured is None else measured <= limit)


def without_errors(runs: Runs, ours: str) -> Bar:
    """Errors and timeouts of all rounds."""
    errors = sum(run.errors for run in runs[ours]) if ours in runs else None
    return Bar(f"errors of {ours}, 256 connections", "0", errors, None if errors is None else errors == 0)


def middle(runs: Runs, ours: str, other: str, figure: Callable[[Run], float]) -> float | None:
    """The median of the ratios, each taken within one round."""
    pairs: Sequence[tuple[Run, Run]] = list(zip(runs.get(ours, []), runs.get(other, [])))
    shares = [figure(our) / figure(their) for our, their in pairs if figure(their)]
    return median(shares) if shares else None

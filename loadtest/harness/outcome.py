"""What an overload led to, and whether that is good enough."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from . import openloop, report

# Ten times the peak of others is out of reach for a generator on the same machine: they are judged by what they got.
KNOWN_COST = ("sleep", "compute")

FACTOR = 10
GOODPUT = 0.9
# Where the generator takes as many cores as it can get, the node has fewer than in the closed loop.
CROWDED_GOODPUT = 0.5
REFUSED_MS = 10.0
# A refusal is cheap and holds nothing; the connections themselves do.
GROWTH_BYTES = 64 * 2**20
RECOVERED = 0.95
RECOVERY_SECONDS = 10


@dataclass(frozen=True)
class Outcome:
    """What one function's overload led to."""

    function: str
    # Calls per second of the closed loop.
    peak: float
    overload: openloop.Run
    after: openloop.Run
    # Of the node alone, without its workers.
    rss_before: int
    rss_most: int
    rss_after: int

    @property
    def factor(self) -> float:
        """How many times the peak was really offered."""
        return self.overload.offered / self.peak

    @property
    def goodput(self) -> float:
        """Of the peak, during the overload."""
        return self.overload.goodput / self.peak

    @property
    def recovery_seconds(self) -> int | None:
        """Until a whole second after the overload was served as well as before; None if none was."""
        enough = (second for second, count in enumerate(self.after.answered_per_second, 1)
                  if count >= RECOVERED * self.peak)
        return next(enough, None)

    @property
    def failures(self) -> list[str]:
        """What is not as it should be."""
        run, failures = self.overload, []
        known, reached = self.function in KNOWN_COST, self.factor >= 0.95 * FACTOR
        if known and not reached:
            failures.append(f"only {self.factor:.1f} times the peak could be offered")
        wanted = GOODPUT if known or reached else CROWDED_GOODPUT
        if self.goodput < wanted:
            failures.append(f"{self.goodput:.0%} of the peak was answered, at least {wanted:.0%} is wanted")
        if known or reached:
            failures += self._refusals()
        if run.bad:
            failures.append(f"{run.failed} other statuses, {run.errors} broken connections, {run.timeouts} timeouts")
        if self.rss_most - self.rss_before > GROWTH_BYTES:
            grown, allowed = report.mebibytes(self.rss_most - self.rss_before), report.mebibytes(GROWTH_BYTES)
            failures.append(f"the node grew by {grown} MiB, over {allowed} MiB")
        if self.recovery_seconds is None:
            best = max(self.after.answered_per_second) / self.peak
            failures.append(f"at most {best:.0%} of the peak within {RECOVERY_SECONDS} s afterwards")
        return [f"{self.function}: {failure}" for failure in failures]

    def _refusals(self) -> list[str]:
        if not self.overload.refused:
            return ["nothing was refused"]
        times, limit = self.overload.refused_service, REFUSED_MS * 1e3
        # A generator that did not get to writing for a while did not get to reading either: that much it cannot tell.
        limits = {"p99": (times.p99, limit), "slowest": (times.max, limit + self.overload.lag.max)}
        return [f"refused after {report.milliseconds(time)} ms ({which}), over {report.milliseconds(most)} ms"
                for which, (time, most) in limits.items() if time > most]

    def as_json(self) -> dict:
        """All figures."""
        return {**dataclasses.asdict(self), "offered_factor": self.factor, "goodput_of_peak": self.goodput,
                "recovery_seconds": self.recovery_seconds, "failures": self.failures}


def render(outcomes: list[Outcome]) -> str:
    """A row per function."""
    head = ["function", "peak/s", "offered", "goodput/s", "of peak", "p99 ms", "refused/s", "refused p50 ms", "p99 ms",
            "max ms", "errors", "generator late, p99 ms", "max ms", "node MiB before", "most", "after", "back after"]
    return report.table(head, [_row(outcome) for outcome in outcomes])


def _row(outcome: Outcome) -> list[str]:
    run, refused = outcome.overload, outcome.overload.refused_service
    recovery = outcome.recovery_seconds
    return [
        outcome.function,
        f"{outcome.peak:,.0f}",
        f"{outcome.factor:.1f} x",
        f"{run.goodput:,.0f}",
        f"{outcome.goodput:.2f}",
        report.milliseconds(run.service.p99),
        f"{sum(run.refused_per_second) / run.load.seconds:,.0f}",
        *(report.milliseconds(time) for time in (refused.p50, refused.p99, refused.max)),
        f"{run.bad:,}",
        *(report.milliseconds(time) for time in (run.lag.p99, run.lag.max)),
        *(report.mebibytes(size) for size in (outcome.rss_before, outcome.rss_most, outcome.rss_after)),
        "never" if recovery is None else f"{recovery} s",
    ]

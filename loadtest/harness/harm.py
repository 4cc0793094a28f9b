"""What an attack did to others, and whether that is acceptable."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from . import report
from .canary import Times
from .footprint import Footprint

P99_FACTOR = 5
# A quiet 99th percentile counts as at least and at most that much. Five times the first is one turn of the Linux
# scheduler (4 ms at 250 Hz) and the call itself; where it is over the second, it was not quiet.
FLOOR_MS, CEILING_MS = 1.0, 4.0
GROWTH_BYTES = 64 * 2**20
# What allocators keep back differs from run to run.
KEPT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Harm:
    """One attack."""

    attack: str
    seconds: float
    # How often it was made, and what it should not have been answered.
    rounds: int
    surprises: Sequence[str]
    quiet: Times
    during: Times
    # Why calls of the canary failed.
    errors: Sequence[str]
    before: Footprint
    rss_most: int
    after: Footprint
    # Processes that outlived the node.
    outlived: int
    # Cores that something else used, quiet and under attack.
    other_load: tuple[float, float]

    @property
    def quiet_ms(self) -> float:
        """The quiet 99th percentile as the bar takes it."""
        return min(max(self.quiet.p99, FLOOR_MS), CEILING_MS)

    @property
    def p99_ratio(self) -> float:
        """Under attack to quiet."""
        return self.during.p99 / self.quiet_ms

    @property
    def loudest(self) -> float:
        """The cores that something else used in the louder phase."""
        return max(self.other_load)

    @property
    def is_loud(self) -> bool:
        """Whether the quiet phase was not quiet, or the attack not alone."""
        return self.loudest > report.NOISY

    @property
    def failures(self) -> list[str]:
        """What is not as it should be."""
        slow = []
        if self.p99_ratio > P99_FACTOR:
            counted = f", counted as {self.quiet_ms:g} ms" if self.quiet_ms != self.quiet.p99 else ""
            slow.append(f"{self.attack}: p99 {self.during.p99:.2f} ms is {self.p99_ratio:.1f} times the quiet one "
                        f"({self.quiet.p99:.2f} ms{counted}), over {P99_FACTOR}")
        return slow + self.lasting_failures

    @property
    def lasting_failures(self) -> list[str]:
        """Those that something else that ran beside cannot be the cause of."""
        failures = list(self.surprises)
        if self.errors:
            failures.append(f"{len(self.errors)} calls of the canary failed, the first with {self.errors[0]}")
        if not self.quiet.calls or not self.during.calls:
            failures.append("the canary was not called")
        grown, kept = self.rss_most - self.before.rss_bytes, self.after.rss_bytes - self.before.rss_bytes
        if grown > GROWTH_BYTES:
            failures.append(f"the node grew by {report.mebibytes(grown)} MiB, over {report.mebibytes(GROWTH_BYTES)} MiB")
        if kept > KEPT_BYTES:
            failures.append(f"the node kept {report.mebibytes(kept)} MiB, over {report.mebibytes(KEPT_BYTES)} MiB")
        left = self.after.more_than(self.before)
        if left:
            failures.append("left behind: " + ", ".join(f"{count} {name}" for name, count in left.items()))
        if self.outlived:
            failures.append(f"{self.outlived} processes outlived the node")
        return [f"{self.attack}: {failure}" for failure in failures]

    def as_json(self) -> dict:
        """All figures."""
        return {**dataclasses.asdict(self), "p99_ratio": self.p99_ratio, "failures": self.failures}


def render(harms: Sequence[Harm]) -> str:
    """What others noticed, and what is left: a row per attack in each table."""
    noticed = ["attack", "times", "s", "calls", "errors", "quiet p50 ms", "p99", "max", "attack p50 ms", "p99", "max",
               "p99 ratio", "sent late, p99", "others' cores"]
    left = ["attack", "node MiB before", "most", "after", *(f"{name} before/after" for name in _counts(harms))]
    return "\n\n".join([
        report.table(noticed, [_noticed(harm) for harm in harms]),
        report.table(left, [_left(harm) for harm in harms]),
    ])


def noise(harms: Sequence[Harm]) -> str:
    """Names the attacks beside which something else took CPU time."""
    loud = [f"{harm.attack} ({harm.loudest:.0%} of a core)" for harm in harms if harm.is_loud]
    return f"Something else ran beside: {', '.join(loud)}." if loud else "Nothing else ran beside."


def _counts(harms: Sequence[Harm]) -> list[str]:
    return list(harms[0].before.counts) if harms else []


def _noticed(harm: Harm) -> list[str]:
    quiet, during = harm.quiet, harm.during
    return [
        harm.attack,
        str(harm.rounds),
        f"{harm.seconds:.1f}",
        f"{quiet.calls}+{during.calls}",
        str(len(harm.errors)),
        *(f"{time:.2f}" for phase in (quiet, during) for time in (phase.p50, phase.p99, phase.max)),
        f"{harm.p99_ratio:.1f}",
        f"{max(quiet.late_p99, during.late_p99):.2f}",
        " ".join(report.shown(load) for load in harm.other_load),
    ]


def _left(harm: Harm) -> list[str]:
    sizes = [harm.before.rss_bytes, harm.rss_most, harm.after.rss_bytes]
    pairs = zip(harm.before.counts.values(), harm.after.counts.values())
    return [harm.attack, *(f"{size / 2**20:.1f}" for size in sizes), *(f"{one}/{two}" for one, two in pairs)]

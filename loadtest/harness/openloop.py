"""Runs the generator of open load and reads what it measured."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from . import proc, servers, wrk


@dataclass(frozen=True)
class Times:
    """Microseconds."""

    p50: int
    p90: int
    p99: int
    p999: int
    max: int


@dataclass(frozen=True)
class Load:
    """A constant rate of arrivals."""

    rate: float
    seconds: float
    connections: int
    warm_up: float = 1.0
    # Seconds after the last arrival in which answers are still waited for.
    drain: float = 1.0
    # Each of them takes a core at most.
    threads: int = 1
    # Milliseconds between two looks; all times are so much too long. 0: it wakes for each call and each answer.
    grain: float = 0.0
    # Whether it runs before the server wherever both want a core.
    first: bool = False


@dataclass(frozen=True)
class Run:
    """What became of the calls of one load. Each is exactly one of answered, refused, failed, errors, timeouts, unanswered."""

    load: Load
    scheduled: int
    # Those that were written to a connection.
    sent: int
    # By 2xx, by 503 or 429, by another status.
    answered: int
    refused: int
    failed: int
    # Of connections.
    errors: int
    timeouts: int
    # At the end, sent or not.
    unanswered: int
    answered_per_second: Sequence[int]
    refused_per_second: Sequence[int]
    # Of answered calls from when they were due; calls without an answer count with the time they waited for it.
    latency: Times
    # Of answered and of refused calls from when they were sent.
    service: Times
    refused_service: Times
    # How late the generator itself sent.
    lag: Times

    @property
    def goodput(self) -> float:
        """Calls answered per second while the load lasted."""
        return sum(self.answered_per_second) / self.load.seconds

    @property
    def offered(self) -> float:
        """Calls per second that reached a connection."""
        return self.sent / self.load.seconds

    @property
    def bad(self) -> int:
        """Calls that ended in something else than an answer or a refusal."""
        return self.failed + self.errors + self.timeouts


def run(request: wrk.Request, load: Load) -> Run:
    """Loads the server."""
    command = [str(servers.binary("fnmesh-openloop")), request.url, "--rate", str(load.rate)]
    command += ["--seconds", str(load.seconds), "--warm-up", str(load.warm_up), "--drain", str(load.drain)]
    command += ["--connections", str(load.connections), "--threads", str(load.threads), "--grain", str(load.grain)]
    if request.body is not None:
        command += ["--body", request.body]
    limit = load.warm_up + load.seconds + load.drain + 60
    finished = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit,
        preexec_fn=proc.run_first if load.first else None,
    )
    if finished.returncode:
        raise wrk.Failed(f"the open-loop generator ended with status {finished.returncode}: {finished.stderr}")
    return parse(finished.stdout, load)


def parse(output: str, load: Load) -> Run:
    """Reads the generator's line of JSON."""
    line = json.loads(output)
    counts = ("scheduled", "sent", "answered", "refused", "failed", "errors", "timeouts", "unanswered")
    return Run(
        load=load,
        **{name: line[name] for name in (*counts, "answered_per_second", "refused_per_second")},
        **{name: Times(**line[f"{name}_us"]) for name in ("latency", "service", "refused_service", "lag")},
    )

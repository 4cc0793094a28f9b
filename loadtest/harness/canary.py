"""Calls one function at a constant rate, whatever becomes of the calls before."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import LOADTEST, proc, servers

PER_SECOND = 50
# As many calls may be without an answer before one is sent late.
CALLERS = 50
# Far more than a call takes on a busy machine.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Call:
    """One call; times on the clock of `time.perf_counter`."""

    due: float
    sent: float
    answered: float
    # None where the answer was right.
    error: str | None

    @property
    def ms(self) -> float:
        """From when it was due."""
        return (self.answered - self.due) * 1e3

    @property
    def late_ms(self) -> float:
        """How late it was sent."""
        return (self.sent - self.due) * 1e3


@dataclass(frozen=True)
class Times:
    """Of the calls of one phase, in milliseconds from when each was due; failed calls count until they failed."""

    calls: int
    errors: int
    p50: float
    p99: float
    max: float
    # The 99th percentile of how late the calls were sent.
    late_p99: float


def times(calls: Sequence[Call]) -> Times:
    """The figures of these calls; nan where there are none."""
    taken = sorted(call.ms for call in calls)
    return Times(
        calls=len(calls),
        errors=sum(call.error is not None for call in calls),
        p50=percentile(taken, 50),
        p99=percentile(taken, 99),
        max=percentile(taken, 100),
        late_p99=percentile(sorted(call.late_ms for call in calls), 99),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least value that this share of them does not exceed (nearest rank)."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1] if ordered else math.nan


def between(calls: Sequence[Call], begin: float, end: float) -> list[Call]:
    """The calls that were due then."""
    return [call for call in calls if begin <= call.due < end]


@contextlib.contextmanager
def singing(address: str, path: str) -> Iterator[list[Call]]:
    """Sings meanwhile, in a process of its own; the list is filled afterwards."""
    calls: list[Call] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.canary", address, path],
        cwd=LOADTEST, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        yield calls
        # It ends when its input does.
        output, _ = process.communicate(timeout=2 * ANSWER_SECONDS)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise SystemExit(f"the canary ended with status {process.returncode}")
    calls.extend(Call(*call) for call in json.loads(output))


def main() -> None:
    """Sings until the end of the input, and prints all calls."""
    address, path = sys.argv[1:]
    calls: list[Call] = []
    begin, numbers, over = time.perf_counter(), itertools.count(), threading.Event()

    def call_on() -> None:
        proc.run_first()
        with contextlib.closing(http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)) as connection:
            # Whoever is free takes the next one; `next` of a count is atomic.
            for number in numbers:
                due = begin + number / PER_SECOND
                if over.wait(max(due - time.perf_counter(), 0)):
                    return
                sent = time.perf_counter()
                error = sing(connection, path, number)
                calls.append(Call(due, sent, time.perf_counter(), error))

    threads = [threading.Thread(target=call_on) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps([dataclasses.astuple(call) for call in calls]))


def sing(connection: http.client.HTTPConnection, path: str, number: int) -> str | None:
    """One call; what is wrong with its answer."""
    try:
        status, body = servers.post(connection, path, [number])
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return repr(error)
    return None if (status, body) == (200, json.dumps(number + 1).encode()) else f"{status} {body[:200]!r}"


if __name__ == "__main__":
    main()

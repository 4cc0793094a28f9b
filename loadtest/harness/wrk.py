"""Runs wrk and reads what it measured."""

from __future__ import annotations

import json
import resource
import subprocess
from dataclasses import dataclass

from . import LOADTEST, proc


class Failed(SystemExit):
    """wrk could not run; ends the program unless it is caught."""


@dataclass(frozen=True)
class Request:
    """What wrk sends, again and again."""

    url: str
    body: str | None = None


@dataclass(frozen=True)
class Run:
    """One run against one server."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    p999_us: int
    max_us: int
    # Without timeouts.
    socket_errors: int
    timeouts: int
    status_errors: int
    # Of the server's process tree.
    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int | None
    # Of everything on the machine but this server and wrk, time stolen by the host included, as a share of one core.
    other_load: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of the server per request."""
        return self.cpu_seconds * 1e6 / max(self.requests, 1)

    @property
    def errors(self) -> int:
        return self.socket_errors + self.timeouts + self.status_errors


def run(request: Request, pid: int, connections: int, seconds: int, threads: int = 2) -> Run:
    """Loads the server whose process tree starts at `pid`."""
    command = ["wrk", f"-t{min(threads, connections)}", f"-c{connections}", f"-d{seconds}", "--timeout", "10s"]
    command += ["-s", str(LOADTEST / "wrk.lua"), request.url, "--"]
    command += ["GET"] if request.body is None else ["POST", request.body]
    busy, server, own = proc.machine_busy_seconds(), proc.cpu_seconds(pid), _children_seconds()
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60)
    busy, server, own = proc.machine_busy_seconds() - busy, proc.cpu_seconds(pid) - server, _children_seconds() - own
    if finished.returncode:
        raise Failed(f"wrk ended with status {finished.returncode}: {finished.stderr or finished.stdout}")
    return parse(finished.stdout, server, (proc.rss_bytes(pid), proc.pss_bytes(pid)), busy - server - own)


def parse(output: str, cpu_seconds: float, memory: tuple[int, int | None], other_seconds: float) -> Run:
    """Reads the line that wrk.lua prints last."""
    line = json.loads(output.rstrip().rsplit("\n", 1)[-1])
    seconds = line["duration_us"] / 1e6
    return Run(
        requests=line["requests"],
        seconds=seconds,
        p50_us=line["p50_us"],
        p99_us=line["p99_us"],
        p999_us=line["p999_us"],
        max_us=line["max_us"],
        socket_errors=line["connect"] + line["read"] + line["write"],
        timeouts=line["timeout"],
        status_errors=line["status"],
        cpu_seconds=cpu_seconds,
        rss_bytes=memory[0],
        pss_bytes=memory[1],
        other_load=max(other_seconds, 0.0) / seconds,
    )


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

"""CPU time and memory of processes and their descendants, from /proc, and which of them run first."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat, as far as it is used here."""

    pid: int
    parent: int
    cpu_seconds: float
    rss_bytes: int


def parse_stat(text: str) -> Process:
    """Reads a stat line. The name in parentheses may hold anything, so fields count from the last one."""
    pid, rest = text.split(" ", 1)
    fields = rest[rest.rindex(")") + 2 :].split()
    # proc(5), counted from field 3: ppid 4, utime 14, stime 15, cutime 16, cstime 17, rss 24.
    # Children that ended and were waited for are in the parent's cutime and cstime.
    ticks = sum(int(field) for field in fields[11:15])
    return Process(int(pid), int(fields[1]), ticks / _TICK, int(fields[21]) * _PAGE)


def tree(root: int) -> list[Process]:
    """The process and all that descend from it, right now."""
    processes = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                process = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
            processes[process.pid] = process
    members = {root}
    grown = True
    while grown:
        found = {p.pid for p in processes.values() if p.parent in members} - members
        members |= found
        grown = bool(found)
    return [processes[pid] for pid in members if pid in processes]


def cpu_seconds(root: int) -> float:
    """CPU time the tree has used so far."""
    return sum(process.cpu_seconds for process in tree(root))


def rss_bytes(root: int) -> int:
    """Resident memory of the tree; pages that its processes share count once for each."""
    return sum(process.rss_bytes for process in tree(root))


def pss_bytes(root: int) -> int | None:
    """Resident memory of the tree, shared pages divided among those that share them; None where the kernel hides it."""
    total = 0
    for process in tree(root):
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            return None
        total += parse_pss(rollup)
    return total


def parse_pss(rollup: str) -> int:
    """Reads the line `Pss:` of smaps_rollup."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def own_rss_bytes(pid: int) -> int:
    """Resident memory of this process alone."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text()).rss_bytes


def machine_busy_seconds() -> float:
    """CPU time all cores have spent on anything so far, or that the host of a virtual machine took from them."""
    return parse_busy(Path("/proc/stat").read_text()) / _TICK


def parse_busy(stat: str) -> int:
    """Ticks of the first line of /proc/stat that were not idle. Time of guests is in user and nice already."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.split("\n", 1)[0].split()[1:])
    return user + nice + system + irq + softirq + steal


def run_first() -> None:
    """Lets this thread run before all others where that is allowed: callers are on other machines in earnest."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

"""What a node holds: memory, processes, files, control groups, temporary directories."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import proc

CGROUPS = Path("/sys/fs/cgroup")
# Below it, a node's group may be in a group of whatever started the node.
_DEPTH = 6
_PAUSE = 0.05
# A fork gets its control group when it takes calls already: unchanged for this long is settled.
_UNCHANGED = 6


@dataclass(frozen=True)
class Footprint:
    """Right now."""

    rss_bytes: int
    # Those that descend from the node, and others that run in the environment of its apps.
    processes: int
    fds: int
    groups: int
    # Of instances, in the node's cache.
    temporaries: int

    @property
    def counts(self) -> dict[str, int]:
        """All but the memory, which is never twice the same."""
        return {"processes": self.processes, "fds": self.fds, "cgroups": self.groups, "temp": self.temporaries}

    def more_than(self, before: Footprint) -> dict[str, int]:
        """What there is more of."""
        grown = {name: count - before.counts[name] for name, count in self.counts.items()}
        return {name: count for name, count in grown.items() if count > 0}


def take(pid: int, cache: Path, marker: str) -> Footprint:
    """Of the node `pid`, whose apps have the line `marker` in their environment."""
    return Footprint(
        rss_bytes=proc.own_rss_bytes(pid),
        processes=len({process.pid for process in proc.tree(pid)} | set(marked(marker))),
        fds=len(os.listdir(f"/proc/{pid}/fd")),
        groups=sum(1 for _ in groups(pid)),
        temporaries=sum(len(list(node.iterdir())) for node in (cache / "tmp").iterdir()),
    )


def settled(look: Callable[[], Footprint], seconds: float) -> Footprint:
    """Once it has stayed the same for a while, or after so many seconds."""
    deadline, now, same = time.monotonic() + seconds, look(), 0
    while same < _UNCHANGED and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        before, now = now, look()
        same = same + 1 if now.counts == before.counts else 0
    return now


def back(look: Callable[[], Footprint], before: Footprint, rss_bytes: int, seconds: float) -> Footprint:
    """Once it is as before and the memory down to this, or after so many seconds."""
    deadline, now = time.monotonic() + seconds, look()
    while (now.counts != before.counts or now.rss_bytes > rss_bytes) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        now = look()
    return now


def marked(marker: str) -> Iterator[int]:
    """Processes with this line in their environment, `NAME=value`."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (process / "environ").read_bytes().split(b"\0"):
                    yield int(process.name)


def groups(pid: int) -> Iterator[Path]:
    """Control groups of instances of the node `pid`, in each hierarchy."""
    for directory in _below(CGROUPS, _DEPTH):
        if directory.name.startswith(f"fnmesh-{pid}-"):
            yield from _directories(directory)


def end_marked(marker: str) -> int:
    """Kills what is left of apps whose node has ended; how many there were."""
    found = list(marked(marker))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def forget_most_rss(pid: int) -> None:
    """From now on [`most_rss_bytes`] is counted anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def most_rss_bytes(pid: int) -> int:
    """The most resident memory of this process alone since it was last forgotten."""
    return parse_most_rss(Path(f"/proc/{pid}/status").read_text())


def parse_most_rss(status: str) -> int:
    """Reads the line `VmHWM:`."""
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _below(directory: Path, depth: int) -> Iterator[Path]:
    for entry in _directories(directory):
        yield entry
        # Groups of nodes hold nothing but those of instances.
        if depth and not entry.name.startswith("fnmesh-"):
            yield from _below(entry, depth - 1)


def _directories(directory: Path) -> list[Path]:
    # It may go meanwhile.
    with contextlib.suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    return []

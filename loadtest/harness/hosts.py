"""Hosts of their own on one machine: network namespaces, joined by `fnmesh-switch`."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import proc, servers

# Of sched.h.
_CLONE_NEWNET = 0x40000000
_NETWORK = "10.0.0"


class Switch:
    """The switch that joins hosts."""

    def __init__(self, names: list[str], seed: int):
        self._names = names
        self._process = subprocess.Popen(
            [servers.binary("fnmesh-switch"), "--seed", str(seed), *names],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, preexec_fn=proc.run_first,
        )
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit(f"fnmesh-switch ended with status {self._process.wait()}; it takes root and /dev/net/tun")

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, command: str) -> str:
        """One command and its answer, as `fnmesh-switch --help` describes them."""
        self._process.stdin.write(f"{command}\n")
        answer = self._process.stdout.readline().rstrip("\n")
        if not answer or answer.startswith("error"):
            raise SystemExit(f"fnmesh-switch answers {command!r} with {answer!r}")
        return answer

    def say_to_all(self, command: str, condition: str) -> None:
        """The same command for each host."""
        for name in self._names:
            self.say(f"{command} {name} {condition}")

    def counts(self) -> dict[str, int]:
        """What has become of packets so far."""
        return json.loads(self.say("counts"))

    def stop(self) -> None:
        # Its input ends.
        self._process.communicate()


@dataclass(frozen=True)
class Network:
    """Hosts, by number."""

    names: list[str]
    switch: Switch

    def address(self, host: int) -> str:
        return f"{_NETWORK}.{host + 1}"

    def enter(self, host: int) -> None:
        """Moves this thread to a host, and what it starts from now on."""
        _enter(f"/run/netns/{self.names[host]}")


@contextlib.contextmanager
def joined(count: int, seed: int = 0) -> Iterator[Network]:
    """So many hosts. This thread is back where it was at the end."""
    names = [f"fnmesh-load-{os.getpid()}-{host}" for host in range(count)]
    with contextlib.ExitStack() as stack:
        outside = f"/proc/self/fd/{stack.enter_context(open('/proc/thread-self/ns/net')).fileno()}"
        for name in names:
            _ip("netns", "add", name)
            # What ran there has ended, or ends by itself: the namespace goes with the last of it.
            stack.callback(_ip, "netns", "delete", name)
        switch = Switch(names, seed)
        stack.callback(switch.stop)
        network = Network(names, switch)
        for host, name in enumerate(names):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "address", "add", f"{network.address(host)}/24", "dev", "eth0")
        stack.callback(_enter, outside)
        yield network


@contextlib.contextmanager
def repeating(work: Callable[[], float]) -> Iterator[list[float]]:
    """Does this again and again in a thread of the same host meanwhile, the last time to its end; what it returned."""
    over, returned, failed = threading.Event(), [], []

    def repeat() -> None:
        try:
            while not over.is_set():
                returned.append(work())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield returned
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace) as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            error = ctypes.get_errno()
            raise SystemExit(f"cannot enter {namespace}: {os.strerror(error)}")


def _ip(*arguments: str) -> None:
    finished = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"ip {' '.join(arguments)} fails: {finished.stderr.strip()}; hosts take root")

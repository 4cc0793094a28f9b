"""Does its worst. Each function ends by itself should nobody stop it."""

import ctypes
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time

LIBC = ctypes.CDLL(None, use_errno=True)


def memory():
    held = []
    while len(held) < 4096:
        held.append(b"\1" * (1 << 20))


def fork():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            time.sleep(0.001)


def open_files():
    held = []
    try:
        while len(held) < 1_000_000:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return error.strerror
    finally:
        for fd in held:
            os.close(fd)


def fill(mebibytes: int):
    for _ in range(mebibytes):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"x" * (1 << 20))


def print_flood(mebibytes: int):
    for _ in range(mebibytes):
        sys.stdout.write("x" * (1 << 20))


def pipe_flood(mebibytes: int):
    for _ in range(16 * mebibytes):
        os.write(1, b"x" * (1 << 16))


def huge():
    return "x" * (70 << 20)


def deep():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def match():
    return bool(re.match(r"(a+)+$", "a" * 64 + "b"))


def parse():
    return len(json.loads("[" + "1," * (50 << 20) + "1]"))


def send(pid: int, number: int):
    try:
        os.kill(pid, number)
    except OSError as error:
        return error.strerror
    return "sent"


def kill_parent():
    return send(os.getppid(), signal.SIGKILL)


def end_group():
    os.killpg(0, signal.SIGTERM)
    time.sleep(10)


def look(pid: int):
    """What can be seen of another process."""
    seen = []
    for name in ("environ", "mem", "maps"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(1)
            seen.append(name)
        except OSError:
            pass
    for name in ("fd", "root/etc", "cwd/"):
        try:
            os.listdir(f"/proc/{pid}/{name}")
            seen.append(name)
        except OSError:
            pass
    return seen


def trace(pid: int):
    attach = 16
    return LIBC.ptrace(attach, pid, 0, 0)


def limit(pid: int):
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
    except OSError as error:
        return error.strerror
    return "limited"


def read(path: str):
    try:
        with open(path, "rb") as file:
            return f"read {len(file.read(1))}"
    except OSError as error:
        return error.strerror


def ok():
    pass

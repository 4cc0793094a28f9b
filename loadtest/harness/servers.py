"""Starts servers on free ports of 127.0.0.1 and stops them again."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import ROOT, peers

START_SECONDS = 180.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 30.0

# What every server under comparison is called with, and what it answers.
HALVES = ["hello ", "world"]
MERGED = "hello world"


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen
    address: str
    # Seconds from spawn to each event it reported.
    events: dict[str, float] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def call(self, path: str, arguments: object, timeout: float = 30.0) -> tuple[int, bytes]:
        """One POST on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=timeout)) as connection:
            return post(connection, path, arguments)


def post(connection: http.client.HTTPConnection, path: str, arguments: object) -> tuple[int, bytes]:
    """One POST of JSON; status and body."""
    connection.request("POST", path, json.dumps(arguments), {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def stop(process: subprocess.Popen) -> None:
    """Asks it to stop, then insists; its whole session goes with it."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def binary(name: str = "fnmesh") -> Path:
    """A program of the build that is measured."""
    path = _target() / "release" / name
    if not path.exists():
        packages = "-p fnmesh -p fnmesh-python -p fnmesh-nodejs -p fnmesh-openloop"
        raise SystemExit(f"{path} is missing; run: cargo build --release {packages}")
    return path


def is_optimized() -> bool:
    """Whether that is the build of `make optimized`."""
    return _target().name == "optimized"


def _target() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


@contextlib.contextmanager
def fnmesh(
    directories: Sequence[Path | str], until: str = "settled", quiet: bool = False, options: Sequence[str] = ()
) -> Iterator[Server]:
    """A node that serves these directories, once it has reported the event `until`."""
    command = [binary(), "serve", "--json", "--listen", "127.0.0.1:0", *options, *directories]
    spawned = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        start_new_session=True,
    )
    lines: queue.Queue[tuple[float, str]] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    try:
        reader.start()
        server = Server(process, "")
        while until not in server.events:
            try:
                moment, line = lines.get(timeout=START_SECONDS)
            except queue.Empty:
                raise SystemExit(f"fnmesh did not report {until!r} within {START_SECONDS:.0f} s") from None
            if not line:
                raise SystemExit(f"fnmesh ended with status {process.wait()} before it was {until}")
            event = json.loads(line)
            server.events.setdefault(event["event"], moment - spawned)
            if "url" in event:
                server.address = event["url"].removeprefix("http://")
        yield server
    finally:
        stop(process)
        # Ends with the process, unless a worker outlived it and holds its output open.
        reader.join(STOP_SECONDS)
        process.stdout.close()


def token(data: Path) -> list[str]:
    """Options of a node that joins the mesh of the node with this data: where, and with what."""
    command = [binary(), "token", "create", "--json", "--data", data]
    created = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return ["--join", created["address"], "--token", created["token"]]


def wait_for_route(entry: Server, path: str) -> None:
    """Returns once a node answers calls of a function that merges two strings at another node."""
    deadline = time.monotonic() + 10
    while entry.call(path, HALVES)[0] != 200:
        if time.monotonic() > deadline:
            raise SystemExit("the node that is called does not find the function")
        time.sleep(0.05)


def _read_lines(process: subprocess.Popen, lines: queue.Queue) -> None:
    for line in process.stdout:
        lines.put((time.perf_counter(), line))
    lines.put((time.perf_counter(), ""))


_NGINX = """\
worker_processes {workers};
daemon off;
pid {prefix}/pid;
error_log {prefix}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        listen 127.0.0.1:{port} reuseport;
        default_type application/json;
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx() -> Iterator[Server]:
    """nginx with a worker per core that answers everything with one constant."""
    with tempfile.TemporaryDirectory(prefix="fnmesh-nginx-") as prefix:
        port = free_port()
        config = _NGINX.format(prefix=prefix, port=port, workers=peers.cores(), answer=json.dumps(MERGED))
        Path(prefix, "nginx.conf").write_text(config)
        command = ["nginx", "-p", prefix, "-e", f"{prefix}/error.log", "-c", f"{prefix}/nginx.conf"]
        with _serving(command, port) as server:
            yield server


@contextlib.contextmanager
def peer(installed: peers.Installed) -> Iterator[Server]:
    """A server of another kind that merges two strings at /, once it does so."""
    port = free_port()
    with _serving(installed.command(port), port, installed.home, installed.environment(port)) as server:
        yield server


@contextlib.contextmanager
def _serving(
    command: Sequence[str], port: int, home: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    try:
        process = subprocess.Popen(
            command, cwd=home, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise peers.Missing(f"{command[0]} does not start: {error}") from None
    try:
        server = Server(process, f"127.0.0.1:{port}")
        wait_until_merging(server)
        yield server
    finally:
        stop(process)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_merging(server: Server, path: str = "/") -> None:
    """Returns once the server merges two strings as it should."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            status, body = server.call(path, HALVES, timeout=ANSWER_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            answer = error
        else:
            answer = f"status {status}: {body[:200]!r}"
            with contextlib.suppress(ValueError):
                if status == 200 and json.loads(body) == MERGED:
                    return
        if server.process.poll() is not None:
            raise peers.Missing(f"it ended with status {server.process.returncode}: {_shown(server.process.args)}")
        if time.monotonic() > deadline:
            raise peers.Missing(f"no right answer within {ANSWER_SECONDS:.0f} s, the last was {answer}")
        time.sleep(0.02)


def _shown(command: Sequence[str | Path]) -> str:
    return " ".join(str(part) for part in command)

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

from . import ROOT

START_SECONDS = 180.0
STOP_SECONDS = 20.0


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


def binary() -> Path:
    """The release build of fnmesh."""
    path = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "fnmesh"
    if not path.exists():
        raise SystemExit(f"{path} is missing; run: cargo build --release -p fnmesh -p fnmesh-python")
    return path


@contextlib.contextmanager
def fnmesh(directories: Sequence[Path | str], until: str = "settled", quiet: bool = False) -> Iterator[Server]:
    """A node that serves these directories, once it has reported the event `until`."""
    command = [binary(), "serve", "--json", "--listen", "127.0.0.1:0", *directories]
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


def _read_lines(process: subprocess.Popen, lines: queue.Queue) -> None:
    for line in process.stdout:
        lines.put((time.perf_counter(), line))
    lines.put((time.perf_counter(), ""))


_NGINX = """\
worker_processes 2;
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
        location / {{ return 200 '"Hello, world"'; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx() -> Iterator[Server]:
    """nginx with two workers that answers everything with one constant."""
    with tempfile.TemporaryDirectory(prefix="fnmesh-nginx-") as prefix:
        port = free_port()
        Path(prefix, "nginx.conf").write_text(_NGINX.format(prefix=prefix, port=port))
        process = subprocess.Popen(
            ["nginx", "-p", prefix, "-e", f"{prefix}/error.log", "-c", f"{prefix}/nginx.conf"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until_listening(process, port)
            yield Server(process, f"127.0.0.1:{port}")
        finally:
            stop(process)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_listening(process: subprocess.Popen, port: int) -> None:
    """Returns once the port takes connections."""
    deadline = time.monotonic() + 10.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise SystemExit(f"the server ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise SystemExit("the server did not listen within 10 s") from None
            time.sleep(0.01)

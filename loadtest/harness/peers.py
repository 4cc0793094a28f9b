"""What fnmesh is compared with, how each is installed, and how its own documentation says to run it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import LOADTEST, ROOT

SOURCES = LOADTEST / "peers"
CACHE = ROOT / ".cache" / "peers"
INSTALL_SECONDS = 600


class Missing(Exception):
    """A peer cannot be had or does not run on this machine; says why."""


@dataclass(frozen=True)
class Peer:
    """A server of the same function. Its folder's name is that of the package it is about."""

    folder: str
    # {home} is the installed folder, {python} its interpreter, {cores} and {port} are numbers.
    command: tuple[str, ...]
    how: str
    # Which installed package's version is shown.
    package: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


NODE = {"NODE_ENV": "production"}
PEERS = {
    "flask-dev": Peer(
        "flask",
        ("{python}", "-m", "flask", "--app", "app", "run", "--host", "127.0.0.1", "--port", "{port}"),
        "Flask's development server, a thread for each connection; its log goes to /dev/null",
        "flask",
    ),
    "flask-gunicorn": Peer(
        "flask",
        ("{python}", "-m", "gunicorn", "--workers", "{cores}", "--bind", "127.0.0.1:{port}", "app:app"),
        "one synchronous worker per core, which closes the connection after each answer",
        "gunicorn",
    ),
    "fastapi-uvicorn": Peer(
        "fastapi",
        ("{python}", "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "{port}", "--workers", "{cores}",
         "--no-access-log", "--log-level", "warning"),
        "uvicorn[standard], one worker per core, an async function",
        "fastapi",
    ),
    "functions-framework-python": Peer(
        "functions-framework-python",
        ("{python}", "-m", "functions_framework", "--target", "merge", "--host", "127.0.0.1", "--port", "{port}"),
        "its own gunicorn with one worker per core, 4 threads per core in each",
        "functions-framework",
        {"WORKERS": "{cores}"},
    ),
    "express": Peer("express", ("node", "single.js"), "one process", "express", NODE),
    "express-clustered": Peer(
        "express", ("node", "clustered.js"), "node:cluster with one worker per core", "express",
        {**NODE, "WORKERS": "{cores}"},
    ),
    "fastify": Peer("fastify", ("node", "server.js"), "one process, with schemas", "fastify", NODE),
    "node-http": Peer("node-http", ("node", "server.js"), "one process, no framework", "", NODE),
    "functions-framework-node": Peer(
        "functions-framework-node",
        ("node", "node_modules/@google-cloud/functions-framework/build/src/main.js", "--target=merge"),
        "one process",
        "@google-cloud/functions-framework",
        NODE,
    ),
    "bun": Peer("bun", ("{home}/node_modules/@oven/bun-*/bin/bun", "server.js"), "Bun.serve, one process", "bun", NODE),
    "deno": Peer(
        "deno",
        ("{home}/node_modules/@deno/*/deno", "run", "--allow-net", "--allow-env", "server.js"),
        "Deno.serve, one process",
        "deno",
        {"DENO_DIR": "{home}/deno", "DENO_NO_UPDATE_CHECK": "1"},
    ),
    "workerd": Peer(
        "workerd",
        ("{home}/node_modules/@cloudflare/workerd-*/bin/workerd", "serve", "config.capnp",
         "--socket-addr", "http=127.0.0.1:{port}"),
        "one process",
        "workerd",
    ),
}


@dataclass(frozen=True)
class Installed:
    """A peer whose packages are there."""

    peer: Peer
    home: Path

    def command(self, port: int) -> list[str]:
        """What to run, in `home`."""
        first, *rest = (part.format(**self._values(port)) for part in self.peer.command)
        if "*" in first:
            first = binary(self.home, first)
        return [first, *rest]

    def environment(self, port: int) -> dict[str, str]:
        """What to run it with: the port, and what production means for this peer."""
        values = self._values(port)
        return {**os.environ, "PORT": str(port),
                **{name: value.format(**values) for name, value in self.peer.environment.items()}}

    @property
    def version(self) -> str:
        """Of the package that is compared."""
        if not self.peer.package:
            return ""
        return f"{self.peer.package} {versions(self.home).get(self.peer.package.lower(), '?')}"

    def _values(self, port: int) -> dict[str, object]:
        return {"home": self.home, "python": self.home / "venv/bin/python", "cores": cores(), "port": port}


def cores() -> int:
    """Cores that processes started here may use."""
    return len(os.sched_getaffinity(0))


def install(peer: Peer) -> Installed:
    """Puts the peer's folder and its packages into the cache, unless they are there unchanged."""
    source = SOURCES / peer.folder
    home = CACHE / f"{peer.folder}-{fingerprint(source)}"
    if not home.exists():
        for outdated in CACHE.glob(f"{peer.folder}-*"):
            # Names may begin alike; a fingerprint has no dash.
            if outdated.name.rpartition("-")[0] == peer.folder:
                shutil.rmtree(outdated)
        unfinished = CACHE / f"unfinished-{peer.folder}"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        packages(unfinished)
        unfinished.rename(home)
    return Installed(peer, home)


def fingerprint(source: Path) -> str:
    """Of a peer's files and of the interpreters they are installed for."""
    digest = hashlib.sha256(f"{platform.machine()} {platform.python_version()}".encode())
    for path in sorted(source.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def packages(home: Path) -> None:
    """Installs what a peer's folder asks for, from the registries its tools are set up for."""
    if (home / "requirements.txt").exists():
        # It is moved when all is there: only the scripts in its bin/ know where it was, and `-m` needs none of them.
        run(["python3", "-m", "venv", "venv"], home)
        run(["venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "-r", "requirements.txt"], home)
    if (home / "package.json").exists():
        # Scripts of packages download what a registry does not have; nothing here needs them.
        how = ["ci"] if (home / "package-lock.json").exists() else ["install", "--no-package-lock"]
        run(["npm", *how, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], home)


def run(command: list[str], home: Path) -> None:
    """Runs one step of an installation."""
    try:
        finished = subprocess.run(command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{' '.join(command[:4])}: {error}") from None
    if finished.returncode:
        last = [line for line in finished.stdout.splitlines() if line.strip()][-1:]
        raise Missing(f"{' '.join(command[:4])} ended with status {finished.returncode}: {''.join(last)}")


def binary(home: Path, pattern: str) -> str:
    """The first of a package's programs that runs here: npm may bring one for each kind of processor."""
    for path in sorted(home.glob(str(Path(pattern).relative_to(home)))):
        try:
            if subprocess.run([path, "--version"], capture_output=True, timeout=30).returncode == 0:
                return str(path)
        except (OSError, subprocess.TimeoutExpired):
            continue
    raise Missing(f"npm has no program {Path(pattern).name} that runs on this machine")


def versions(home: Path) -> dict[str, str]:
    """Exact versions that a peer's folder asks for."""
    requirements, package = home / "requirements.txt", home / "package.json"
    if requirements.exists():
        pairs = (line.split("==") for line in requirements.read_text().split() if "==" in line)
        return {name.lower(): version for name, version in pairs}
    return json.loads(package.read_text()).get("dependencies", {}) if package.exists() else {}

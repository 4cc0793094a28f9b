"""Runs what the services of compose.yaml run, as it stands there, with other addresses and directories."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from definitions import DOCKER, ROOT, command_line, compose, dockerfile

FNMESH = Path(os.environ.get("FNMESH", ROOT / "target/debug/fnmesh")).resolve()
# For anything; a debug build on a busy machine is slow.
PATIENCE_S = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Topology(unittest.TestCase):
    """The three nodes as processes: each has an address of 127.0.0.0/8 for its own."""

    def setUp(self):
        _, self.stages = dockerfile()
        self.services = compose()["services"]
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        self.root = Path(root.name)
        for directory in ["bin", "join", "home"]:
            (self.root / directory).mkdir()
        (self.root / "bin/fnmesh").symlink_to(FNMESH)
        (self.root / "bin/python3").symlink_to(sys.executable)
        self.http, self.mesh = free_port(), free_port()

    def adapted(self, service, words):
        """Words of a service's command for this machine."""
        networks = self.services[service].get("networks", {})
        own = networks["mesh"]["ipv4_address"] if isinstance(networks, dict) and networks else "127.0.0.1"
        for old, new in [
            ("0.0.0.0:", f"{own}:"),
            ("127.0.0.1:8080", f"{own}:8080"),
            ("172.30.7.", "127.30.7."),
            (":8080", f":{self.http}"),
            (":7100", f":{self.mesh}"),
            ("/var/lib/fnmesh", str(self.root / "home")),
            ("/join/", f"{self.root}/join/"),
            ("/apps/", f"{(DOCKER / '../examples').resolve()}/"),
            ("/usr/local/share/fnmesh/", f"{ROOT}/loadtest/"),
        ]:
            words = [word.replace(old, new) for word in words]
        return words

    def start(self, service, words):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FNMESH_")}
        environment |= {
            "PATH": f"{self.root}/bin:{environment['PATH']}",
            "HOME": str(self.root / "home"),
            "XDG_RUNTIME_DIR": str(self.root / "home"),
            "FNMESH_CACHE": str(self.root / "home/cache"),
            "FNMESH_PYTHON_EXTENSION": str(FNMESH.with_name("libfnmesh_python.so")),
        }
        log = (self.root / f"{service}.log").open("ab")
        self.addCleanup(log.close)
        process = subprocess.Popen(self.adapted(service, words), env=environment, stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        process.kill()
        process.wait()

    def log(self, service):
        return (self.root / f"{service}.log").read_text()

    def up(self, service):
        """Starts a service; waits until it is healthy or, if it is a task, done."""
        stage = self.stages["load" if service == "load" else "node"]
        process = self.start(service, command_line(self.services[service], stage))
        if service not in ("n1", "n2", "n3"):
            self.assertEqual(process.wait(PATIENCE_S), 0, self.log(service))
            return process
        check = stage.last("HEALTHCHECK").exec_form()
        deadline = time.monotonic() + PATIENCE_S
        while self.start(f"{service}", check).wait(PATIENCE_S) != 0:
            self.assertIsNone(process.poll(), self.log(service))
            self.assertLess(time.monotonic(), deadline, self.log(service))
            time.sleep(0.1)
        return process

    def url(self, node):
        address = self.services[node]["networks"]["mesh"]["ipv4_address"].replace("172.", "127.")
        return f"http://{address}:{self.http}"

    def get(self, node, path):
        with urllib.request.urlopen(self.url(node) + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def test_three_nodes_start_join_serve_and_stop(self):
        running = {}
        # In an order that the services' own conditions allow.
        for service in ["n1", "token", "n2", "n3", "deploy"]:
            self.assertLessEqual(set(self.services[service].get("depends_on", [])), set(running), service)
            running[service] = self.up(service)
        nodes = ["n1", "n2", "n3"]
        for node in nodes:
            names = sorted(member["name"] for member in self.get(node, "/_/nodes") if member["reachable"])
            self.assertEqual(names, nodes)
            self.assertEqual(self.get(node, "/text/merge?a=x&b=y"), "xy")
            self.assertEqual([app["name"] for app in self.get(node, "/_/apps")], ["text"], "deployed to every node")
        # Started again, it needs no token that is still valid.
        running["n2"].terminate()
        self.assertEqual(running["n2"].wait(PATIENCE_S), 0, self.log("n2"))
        token = self.root / "join/token.json"
        token.write_text(json.dumps({"token": json.loads(token.read_text())["token"][:-1] + "0"}))
        running["n2"] = self.up("n2")
        self.assertEqual(self.get("n2", "/text/merge?a=x&b=y"), "xy")
        for node in reversed(nodes):
            running[node].terminate()
            self.assertEqual(running[node].wait(PATIENCE_S), 0, self.log(node))

    def test_load_run_calls_what_is_deployed(self):
        words = self.adapted("load", command_line(self.services["load"], self.stages["load"]))
        program, *options, url, separator, method, body = words
        self.assertEqual((program, separator), ("wrk", "--"))
        script = Path(options[options.index("-s") + 1])
        self.assertTrue(script.is_file())
        copied = self.stages["load"].last("COPY").text.split()[1]
        self.assertIn(copied, command_line(self.services["load"], self.stages["load"]))
        deployed = Path(shlex.split(command_line(self.services["deploy"], self.stages["node"])[-1])[2]).name
        app, function = url.split("/")[-2:]
        self.assertEqual(app, deployed)
        for service in ["n1", "token", "n2", "n3", "deploy"]:
            self.up(service)
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            self.assertEqual(json.load(answer), "Hello, world")
        self.assertTrue(url.startswith(self.url("n2")) and function)
        if shutil.which("wrk"):
            short = [word.replace("-d30s", "-d1s") for word in words]
            run = subprocess.run(short, capture_output=True, text=True, timeout=PATIENCE_S)
            measured = json.loads(run.stdout.splitlines()[-1])
            self.assertGreater(measured["requests"], 0, run.stdout)
            self.assertEqual(measured["status"], 0, run.stdout)


if __name__ == "__main__":
    unittest.main()

"""Rules for the Dockerfile and the compose file, which no container engine has to be there for."""

import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from definitions import DOCKER, ROOT, command_line, compose, dockerfile

FNMESH = os.environ.get("FNMESH", ROOT / "target/debug/fnmesh")


def options_of(command):
    """Every option that `fnmesh COMMAND --help` names."""
    shown = subprocess.run([FNMESH, *command, "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z][a-z-]*", shown.stdout))


def host_platform():
    """What cargo builds for by itself."""
    shown = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True)
    return re.search(r"^host: (.+)$", shown.stdout, re.MULTILINE).group(1)


def invocations(text):
    """The arguments of each `fnmesh` in these shell lines."""
    for line in text.splitlines():
        words = shlex.split(line)
        words = words[1:] if words[:1] == ["exec"] else words
        if words[:1] == ["fnmesh"]:
            yield words[1:]


class Dockerfile(unittest.TestCase):
    def setUp(self):
        self.args, self.stages = dockerfile()

    def test_images_are_named_with_a_fixed_tag_and_no_registry(self):
        for stage in self.stages.values():
            name, _, tag = stage.image.partition(":")
            self.assertRegex(name, r"^[a-z]+$", stage.image)
            self.assertNotIn(tag, ["", "latest", "slim", "stable"], stage.image)

    def test_all_stages_are_of_one_debian_release(self):
        releases = {re.search(r"bookworm|trixie|forky", stage.image).group() for stage in self.stages.values()}
        self.assertEqual(len(releases), 1, releases)

    def test_rust_is_the_one_of_the_workspace(self):
        wanted = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
        least = re.search(r'rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text()).group(1)
        version = self.args["RUST_VERSION"]
        self.assertRegex(version, r"^\d+\.\d+\.\d+$")
        if wanted[0].isdigit():
            self.assertEqual(version, wanted)
        self.assertGreaterEqual([int(part) for part in version.split(".")], [int(part) for part in least.split(".")])

    def test_packages_are_installed_in_one_layer_without_leftovers(self):
        for stage in self.stages.values():
            for run in stage.all("RUN"):
                self.assertNotRegex(run.text, r"\b(sudo|apt|curl|wget)\s")
                for install in re.findall(r"apt-get install[^&]*", run.text):
                    self.assertIn("--yes", install)
                    self.assertIn("--no-install-recommends", install)
                    self.assertIn("apt-get update &&", re.sub(r"\s+", " ", run.text))
                    self.assertIn("rm -rf /var/lib/apt/lists/*", run.text)

    def test_files_that_are_copied_exist_and_are_not_ignored(self):
        rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
        self.assertEqual(rules[0], "*")
        let_in = {rule[1:] for rule in rules if rule[0] == "!"}
        copied = set()
        for stage in self.stages.values():
            self.assertEqual(stage.all("ADD"), [], "COPY does no more than it says")
            for copy in stage.all("COPY"):
                *sources, target = copy.text.split()
                if sources[0].startswith("--from="):
                    self.assertIn(sources[0].split("=")[1], self.stages)
                    built = " ".join(run.text for run in self.stages["build"].all("RUN"))
                    self.assertTrue(all(source.rsplit("/", 1)[1] in built for source in sources[1:]))
                    continue
                copied.update(sources)
                for source in sources:
                    self.assertTrue((ROOT / source).exists(), source)
                self.assertTrue(len(sources) == 1 or target.endswith("/"), copy.text)
        self.assertEqual(copied, let_in)

    def test_every_member_of_the_workspace_is_there(self):
        members = re.search(r"members = \[(.+)\]", (ROOT / "Cargo.toml").read_text()).group(1)
        copied = {copy.text.split()[0] for copy in self.stages["build"].all("COPY")}
        for member in re.findall(r'"(.+?)"', members):
            self.assertTrue({member, member.split("/")[0]} & copied, member)

    def test_what_is_copied_is_a_whole_workspace(self):
        rules = (ROOT / ".dockerignore").read_text().splitlines()
        ignored = shutil.ignore_patterns(*(rule[3:] for rule in rules if rule.startswith("**/")))
        with tempfile.TemporaryDirectory() as context:
            for copy in self.stages["build"].all("COPY"):
                *sources, _ = copy.text.split()
                for source in sources:
                    target = Path(context, source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if (ROOT / source).is_dir():
                        shutil.copytree(ROOT / source, target, ignore=ignored)
                    else:
                        shutil.copy(ROOT / source, target)
            # Reads every manifest and finds every crate of the lock file that a build here has fetched.
            command = ["cargo", "metadata", "--locked", "--offline", "--format-version=1"]
            command += ["--filter-platform", host_platform()]
            run = subprocess.run(command, cwd=context, capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)
            packages = {package["name"]: package for package in json.loads(run.stdout)["packages"]}
            built = " ".join(it.text for it in self.stages["build"].all("RUN"))
            for name in re.findall(r"--package (\S+)", built):
                self.assertTrue(packages[name]["manifest_path"].startswith(context), name)

    def test_files_that_are_compiled_in_are_of_the_same_crate(self):
        copied = [copy.text.split()[0] for copy in self.stages["build"].all("COPY")]
        for crate in [ROOT / name for name in copied if (ROOT / name).is_dir()]:
            for source in crate.rglob("src/**/*.rs"):
                for path in re.findall(r'include_(?:str|bytes)!\("(.+?)"\)', source.read_text()):
                    self.assertTrue((source.parent / path).resolve().is_relative_to(crate), f"{source}: {path}")

    def test_runs_as_a_user_with_few_rights(self):
        for name in ["node", "load"]:
            stage = self.stages[name]
            names = [it.name for it in stage.instructions]
            self.assertLess(names.index("USER"), names.index("ENTRYPOINT"))
            self.assertRegex(stage.last("USER").text, r"^[1-9]\d{3,}:[1-9]\d{3,}$")
            self.assertNotIn("RUN", names[names.index("USER"):])
        user = self.stages["node"].last("USER").text.split(":")[0]
        made = " ".join(run.text for run in self.stages["node"].all("RUN"))
        self.assertIn(f"useradd --uid {user} ", made)

    def test_directories_are_absolute(self):
        for stage in self.stages.values():
            for directory in stage.all("WORKDIR") + stage.all("VOLUME"):
                self.assertTrue(directory.text.startswith("/"), directory.text)

    def test_processes_are_started_without_a_shell(self):
        for name in ["node", "load"]:
            self.assertIsNotNone(self.stages[name].last("ENTRYPOINT").exec_form())
        node = self.stages["node"]
        self.assertIsNotNone(node.last("CMD").exec_form())
        self.assertIsNotNone(node.last("HEALTHCHECK").exec_form())
        self.assertIn("/_/ready", node.last("HEALTHCHECK").text)
        self.assertEqual(node.last("STOPSIGNAL").text, "SIGTERM")
        self.assertEqual(node.last("EXPOSE").text.split(), ["8080/tcp", "7100/udp"])

    def test_worker_core_is_where_the_node_looks_for_it(self):
        copy = next(copy for copy in self.stages["node"].all("COPY"))
        self.assertIn("/out/fnmesh /out/libfnmesh_python.so /out/libfnmesh_nodejs.so /usr/local/bin/", copy.text)

    def test_options_exist(self):
        command = self.stages["node"].last("CMD").exec_form()
        self.assertLessEqual({word for word in command if word.startswith("--")}, options_of(command[:1]))


class Compose(unittest.TestCase):
    def setUp(self):
        _, self.stages = dockerfile()
        self.compose = compose()
        self.services = self.compose["services"]

    def command(self, name):
        stage = self.stages["load" if name == "load" else "node"]
        return command_line(self.services[name], stage)

    def text(self, name):
        """What a service runs as shell lines."""
        command = self.command(name)
        return command[-1] if command[0] == "/bin/sh" else shlex.join(command)

    def test_options_exist(self):
        for name in self.services:
            for words in invocations(self.text(name)):
                command = [word for word in words[:2] if word in ("serve", "token", "create", "deploy")]
                used = {word for word in words if word.startswith("--")}
                self.assertLessEqual(used, options_of(command), name)

    def test_all_but_the_load_run_call_fnmesh(self):
        for name in self.services:
            count = len(list(invocations(self.text(name))))
            self.assertEqual(count, 0 if name == "load" else 1, name)

    def test_nodes_agree(self):
        subnet = ipaddress.ip_network(self.compose["networks"]["mesh"]["ipam"]["config"][0]["subnet"])
        seen = set()
        first = self.services["n1"]["networks"]["mesh"]["ipv4_address"]
        for name in ["n1", "n2", "n3"]:
            service = self.services[name]
            address = service["networks"]["mesh"]["ipv4_address"]
            self.assertIn(ipaddress.ip_address(address), subnet)
            words = next(invocations(self.text(name)))
            option = lambda option: words[words.index(option) + 1]
            self.assertEqual(option("--advertise"), f"{address}:7100")
            self.assertEqual((option("--listen"), option("--mesh")), ("0.0.0.0:8080", "0.0.0.0:7100"))
            self.assertEqual(option("--data"), f"/var/lib/fnmesh/{name}")
            self.assertIn(f"{name}:/var/lib/fnmesh", service["volumes"])
            if name != "n1":
                self.assertEqual(option("--join"), f"{first}:7100")
                self.assertIn("join:/join:ro", service["volumes"])
            seen |= {address, *service["ports"]}
        self.assertEqual(len(seen), 6, "addresses and ports are of one node each")
        self.assertEqual(self.text("n2"), self.text("n3").replace("/n3", "/n2").replace(".13:", ".12:"))

    def test_what_is_named_is_there(self):
        for name, service in self.services.items():
            self.assertLessEqual(set(service.get("depends_on", [])), set(self.services), name)
            self.assertTrue(service["image"].endswith(":local"), "an image that is built here")
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                there = (DOCKER / source).is_dir() if source.startswith(".") else source in self.compose["volumes"]
                self.assertTrue(there, volume)
            if "build" in service:
                build = service["build"]
                self.assertEqual((DOCKER / build["context"]).resolve(), ROOT)
                self.assertTrue((ROOT / build["dockerfile"]).is_file())
                self.assertIn(build["target"], self.stages)

    def test_ports_are_open_to_this_machine_only(self):
        for name in ["n1", "n2", "n3"]:
            self.assertTrue(all(port.startswith("127.0.0.1:") for port in self.services[name]["ports"]), name)

    def test_load_run_is_left_out_unless_asked_for(self):
        self.assertEqual([name for name in self.services if "profiles" in self.services[name]], ["load"])


if __name__ == "__main__":
    unittest.main()

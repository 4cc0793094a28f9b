import contextlib
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import bars, canary, chart, document, footprint, harm, openloop, outcome, peers, proc, report, servers, wrk


def run(requests: int, other_load: float = 0.0, errors: int = 0) -> wrk.Run:
    return wrk.Run(requests, 2.0, 500, 900, 950, 1000, errors, 0, 0, 0.1, 2**20, 2**19, other_load)


class Proc(unittest.TestCase):
    def test_stat_of_a_process_with_an_odd_name(self):
        tick = os.sysconf("SC_CLK_TCK")
        fields = ["S", "7"] + ["0"] * 9 + ["100", "20", "3", "4"] + ["0"] * 6 + ["5"] + ["0"] * 10
        process = proc.parse_stat(f"42 (a ) (b) {' '.join(fields)}\n")
        self.assertEqual((process.pid, process.parent), (42, 7))
        self.assertEqual(process.cpu_seconds, 127 / tick)
        self.assertEqual(process.rss_bytes, 5 * os.sysconf("SC_PAGE_SIZE"))

    def test_tree_holds_descendants_and_no_others(self):
        script = "import subprocess, sys; p = subprocess.Popen(['cat'], stdin=0); print(p.pid, flush=True); p.wait()"
        parent = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with parent:
            child = int(parent.stdout.readline())
            self.assertEqual({process.pid for process in proc.tree(parent.pid)}, {parent.pid, child})
            self.assertGreater(proc.rss_bytes(parent.pid), proc.own_rss_bytes(parent.pid))
            self.assertNotIn(os.getpid(), {process.pid for process in proc.tree(child)})
            parent.stdin.close()

    def test_shared_pages_are_divided(self):
        self.assertEqual(proc.parse_pss("Rss:  900 kB\nPss:                 512 kB\nPss_Anon: 3 kB\n"), 512 * 1024)
        self.assertEqual(proc.parse_pss(""), 0, "a zombie has no memory")
        self.assertLessEqual(proc.pss_bytes(os.getpid()), proc.rss_bytes(os.getpid()) + 2**20)

    def test_stolen_time_counts_as_busy(self):
        self.assertEqual(proc.parse_busy("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1 1 1 1\n"), 63)

    def test_cpu_time_of_ended_children_stays(self):
        before = proc.cpu_seconds(os.getpid())
        subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
        self.assertGreater(proc.cpu_seconds(os.getpid()), before)

    def test_a_caller_runs_first_where_that_is_allowed(self):
        says = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
        said = subprocess.run(says, preexec_fn=proc.run_first, capture_output=True, text=True, check=True).stdout
        self.assertEqual(int(said), os.SCHED_FIFO if self.may_run_first() else os.SCHED_OTHER)

    def may_run_first(self) -> bool:
        return subprocess.run(["chrt", "--fifo", "1", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


class Wrk(unittest.TestCase):
    LINE = (
        '{"duration_us":2000000,"requests":1000,"p50_us":500,"p99_us":900,"p999_us":950,"max_us":1000,'
        '"connect":1,"read":2,"write":3,"timeout":4,"status":5}'
    )

    def test_reads_the_last_line(self):
        parsed = wrk.parse(f"Running 2s test\n  1000 requests\n{self.LINE}\n", 0.25, (2**20, None), 0.5)
        self.assertEqual((parsed.per_second, parsed.cpu_us), (500.0, 250.0))
        self.assertEqual((parsed.socket_errors, parsed.timeouts, parsed.status_errors, parsed.errors), (6, 4, 5, 15))
        self.assertEqual((parsed.p999_us, parsed.rss_bytes, parsed.pss_bytes), (950, 2**20, None))
        self.assertEqual(parsed.other_load, 0.25)


class Report(unittest.TestCase):
    def test_ratios_are_taken_by_round(self):
        self.assertEqual(report.ratios([run(50), run(60)], [run(100), run(80)]), [0.5, 0.75])
        self.assertEqual(report.ratios([run(50)], None), [])

    def test_comparison_has_a_row_per_server(self):
        text = report.comparison({"nginx": [run(100)], "python": [run(80, errors=2)]}, "nginx")
        head, rule, nginx, python = text.split("\n")
        self.assertEqual(len({len(line) for line in (head, rule, nginx, python)}), 1, "columns line up")
        self.assertEqual([cell.strip() for cell in python.split("|")][1:5], ["python", "40", "40 - 40", "0.80"])
        self.assertEqual(python.split("|")[9].strip(), "2")

    def test_small_ratios_and_long_times_stay_legible(self):
        self.assertEqual([report.shown(0.0213), report.shown(0.82)], ["0.021", "0.82"])
        self.assertEqual([report.milliseconds(1234), report.milliseconds(1_234_000)], ["1.23", "1,234"])
        self.assertEqual([report.mebibytes(3 * 2**20), report.mebibytes(None)], ["3", "-"])

    def test_versions_lose_the_name_of_the_program(self):
        self.assertEqual(report.version("echo", "nginx version: nginx/1.22.1"), "1.22.1")
        self.assertEqual(report.version("echo", "Python 3.11.7"), "3.11.7")
        self.assertEqual(report.version("no-such-program"), "")

    def test_loud_rounds_are_named(self):
        self.assertIn("python round 2", report.noise({"python": [run(1), run(1, other_load=0.5)]}))
        self.assertNotIn("round", report.noise({"python": [run(1)]}))


def open_run(**changes) -> openloop.Run:
    line = {name: 0 for name in ("scheduled", "sent", "answered", "refused", "failed", "errors", "timeouts", "unanswered")}
    times = {"p50": 1000, "p90": 2000, "p99": 3000, "p999": 4000, "max": 5000}
    line |= {f"{name}_us": times for name in ("latency", "service", "refused_service", "lag")}
    line |= {"answered_per_second": [100, 80], "refused_per_second": [0, 10], **changes}
    return openloop.parse(json.dumps(line), openloop.Load(rate=100, seconds=2, connections=4))


class OpenLoop(unittest.TestCase):
    def test_goodput_is_what_was_answered_in_time(self):
        run = open_run(answered=250, sent=300, failed=1, errors=2, timeouts=4)
        self.assertEqual((run.goodput, run.offered, run.bad), (90.0, 150.0, 7))

    def test_a_row_per_server(self):
        row = report.open_loads({"deno": open_run(unanswered=3)}).split("\n")[2]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        self.assertEqual(cells, ["deno", "100", "90", "1.00", "2.00", "3.00", "4.00", "5.00", "0", "0", "3", "3.00"])


def overloaded(function: str = "sleep", **changes) -> outcome.Outcome:
    """A peak of 100/s to which 1,000/s were offered for 2 s, and all of which was answered."""
    quick = {"p50": 100, "p90": 200, "p99": 300, "p999": 400, "max": 9000}
    line = {"sent": 2000, "answered": 200, "answered_per_second": [100, 100], "refused": 1800, "refused_service_us": quick}
    figures = {"overload": open_run(**line), "after": open_run(answered_per_second=[50, 94, 95, 20]),
               "rss_before": 0, "rss_most": 2**20, "rss_after": 0}
    run = {name: changes.pop(name) for name in list(changes) if name not in figures}
    return outcome.Outcome(function, 100.0, **{**figures, "overload": open_run(**{**line, **run}), **changes})


class Overload(unittest.TestCase):
    def test_nothing_is_wrong_when_all_bars_are_met(self):
        result = overloaded()
        self.assertEqual((result.factor, result.goodput, result.recovery_seconds, result.failures), (10.0, 1.0, 3, []))

    def test_each_bar_can_be_missed(self):
        slow = {"p50": 100, "p90": 200, "p99": 20000, "p999": 20000, "max": 20000}
        for changes, said in [
            ({"sent": 1800}, "only 9.0 times the peak"),
            ({"answered_per_second": [89, 89]}, "89% of the peak was answered, at least 90%"),
            ({"refused": 0}, "nothing was refused"),
            ({"refused_service_us": slow}, "20.00 ms (p99), over 10.00 ms"),
            ({"failed": 1, "errors": 2}, "1 other statuses, 2 broken"),
            ({"rss_most": 65 * 2**20}, "grew by 65 MiB, over 64 MiB"),
            ({"after": open_run(answered_per_second=[94, 90])}, "at most 94% of the peak"),
        ]:
            with self.subTest(said):
                self.assertIn(said, "\n".join(overloaded(**changes).failures))

    def test_the_slowest_refusal_is_known_up_to_the_delay_of_the_generator(self):
        self.assertEqual(overloaded().overload.lag.max, 5000)
        for slowest, failures in [(14_999, 0), (15_001, 1)]:
            times = {"p50": 100, "p90": 200, "p99": 300, "p999": 400, "max": slowest}
            self.assertEqual(len(overloaded(refused_service_us=times).failures), failures, slowest)

    def test_what_could_not_be_offered_is_not_judged_by_refusals(self):
        crowded = {"sent": 400, "answered_per_second": [60, 60], "refused": 0}
        self.assertEqual(overloaded("fast", **crowded).failures, [])
        self.assertIn("at least 50%", overloaded("fast", **{**crowded, "answered_per_second": [40, 40]}).failures[0])
        self.assertIn("at least 90%", overloaded("fast", answered_per_second=[60, 60]).failures[0])

    def test_prints_and_stores_all_of_it(self):
        result = overloaded()
        self.assertEqual(len(outcome.render([result]).split("\n")), 3)
        self.assertEqual(json.loads(json.dumps(result.as_json()))["overload"]["load"]["connections"], 4)


def sung(*milliseconds: float, error: str | None = None) -> list[canary.Call]:
    return [canary.Call(due, due + 0.001, due + ms / 1e3, error) for due, ms in enumerate(milliseconds)]


class Canary(unittest.TestCase):
    def test_latency_counts_from_when_a_call_was_due(self):
        times = canary.times([*sung(*range(1, 100)), *sung(500, error="502")])
        self.assertEqual((times.calls, times.errors), (100, 1))
        self.assertEqual([round(time, 6) for time in (times.p50, times.p99, times.max)], [50, 99, 500])
        self.assertAlmostEqual(times.late_p99, 1)

    def test_no_calls_have_no_times(self):
        times = canary.times([])
        self.assertEqual((times.calls, times.errors), (0, 0))
        self.assertNotEqual(times.p99, times.p99)

    def test_calls_belong_to_the_phase_they_were_due_in(self):
        calls = sung(1, 5000, 1, 1)
        self.assertEqual(canary.between(calls, 1, 3), calls[1:3])

    def test_sings_at_its_rate_whatever_the_answers_are(self):
        with canary.singing(f"127.0.0.1:{servers.free_port()}", "/") as calls:
            time.sleep(1)
        self.assertGreater(len(calls), canary.PER_SECOND / 4)
        for one, next_one in itertools.pairwise(sorted(calls, key=lambda call: call.due)):
            self.assertAlmostEqual(next_one.due - one.due, 1 / canary.PER_SECOND)
        self.assertTrue(all("refused" in call.error for call in calls))


HELD = footprint.Footprint(rss_bytes=10 * 2**20, processes=5, fds=44, groups=8, temporaries=2)


def harmed(quiet_ms: float = 0.5, during_ms: float = 1.0, **changes) -> harm.Harm:
    figures = {
        "attack": "forks", "seconds": 3.0, "rounds": 9, "surprises": [], "errors": [], "before": HELD,
        "rss_most": 11 * 2**20, "after": HELD, "outlived": 0, "other_load": (0.0, 0.02),
        "quiet": canary.times(sung(quiet_ms)), "during": canary.times(sung(during_ms)), **changes,
    }
    return harm.Harm(**figures)


class Harm(unittest.TestCase):
    def test_nothing_is_wrong_when_nobody_noticed(self):
        self.assertEqual(harmed().failures, [])
        self.assertEqual(harmed(after=dataclasses.replace(HELD, processes=4)).failures, [])

    def test_each_bar_can_be_missed(self):
        for changes, said in [
            ({"quiet_ms": 2.0, "during_ms": 10.1}, "p99 10.10 ms is 5.0 times the quiet one (2.00 ms), over 5"),
            ({"during_ms": 5.1}, "5.1 times the quiet one (0.50 ms, counted as 1 ms)"),
            ({"during": canary.times([])}, "was not called"),
            ({"errors": ["502 b''", "502 b''"]}, "2 calls of the canary failed, the first with 502"),
            ({"surprises": ["send answers 200"]}, "forks: send answers 200"),
            ({"rss_most": 75 * 2**20}, "grew by 65 MiB, over 64 MiB"),
            ({"after": dataclasses.replace(HELD, rss_bytes=27 * 2**20)}, "kept 17 MiB, over 16 MiB"),
            ({"after": dataclasses.replace(HELD, fds=46, groups=9)}, "left behind: 2 fds, 1 cgroups"),
            ({"outlived": 3}, "3 processes outlived the node"),
        ]:
            with self.subTest(said):
                self.assertEqual(len(harmed(**changes).failures), 1)
                self.assertIn(said, harmed(**changes).failures[0])

    def test_quiet_times_count_within_bounds(self):
        for quiet, counted in [(0.1, 1.0), (2.0, 2.0), (9.0, 4.0)]:
            self.assertAlmostEqual(harmed(quiet_ms=quiet, during_ms=8.0).p99_ratio, 8.0 / counted)

    def test_all_but_slowness_is_a_failure_however_loud_it_was(self):
        self.assertEqual(len(harmed(during_ms=100.0).failures), 1)
        self.assertEqual(harmed(during_ms=100.0).lasting_failures, [])
        self.assertEqual(len(harmed(during_ms=100.0, outlived=1).lasting_failures), 1)

    def test_prints_and_stores_all_of_it(self):
        self.assertEqual(harm.render([harmed()]).count("| forks "), 2)
        self.assertEqual(json.loads(json.dumps(harmed().as_json()))["before"]["fds"], 44)
        self.assertEqual(harm.noise([harmed()]), "Nothing else ran beside.")
        self.assertIn("forks (50% of a core)", harm.noise([harmed(other_load=(0.5, 0.0))]))


class Footprints(unittest.TestCase):
    def test_finds_processes_by_their_environment(self):
        marker = f"ATTACK=/no/such/directory/{os.getpid()}"
        name, value = marker.split("=")
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={name: value}) as child:
            while not (found := list(footprint.marked(marker))):
                pass
            self.assertEqual(found, [child.pid])
            self.assertEqual(list(footprint.marked(marker[:-1])), [])
            self.assertEqual(footprint.end_marked(marker), 1)
            self.assertEqual(child.wait(), -9)

    def test_most_memory_is_read_from_status(self):
        self.assertEqual(footprint.parse_most_rss("Name:\tx\nVmHWM:\t  512 kB\nVmRSS:\t 4 kB\n"), 512 * 1024)
        self.assertEqual(footprint.parse_most_rss(""), 0, "a zombie has no memory")

    def test_groups_are_those_below_the_node_s_own(self):
        with tempfile.TemporaryDirectory() as root:
            for group in ("memory/a/fnmesh-7-0/1", "pids/fnmesh-7-0/1", "pids/fnmesh-7-0/2", "pids/fnmesh-77-0/1"):
                Path(root, group).mkdir(parents=True)
            with mock.patch.object(footprint, "CGROUPS", Path(root)):
                self.assertEqual(len(list(footprint.groups(7))), 3)

    def test_waits_until_it_is_as_before(self):
        states = iter([dataclasses.replace(HELD, fds=50), dataclasses.replace(HELD, processes=4), HELD])
        self.assertEqual(footprint.back(lambda: next(states), HELD, HELD.rss_bytes, 10), HELD)


class Attackers(unittest.TestCase):
    def test_each_step_is_a_function_that_is_there(self):
        loader = SourceFileLoader("attacks", str(Path(__file__).resolve().parent.parent / "attacks"))
        attacks = module_from_spec(spec_from_loader("attacks", loader))
        with mock.patch.dict(sys.modules, attacks=attacks), mock.patch.object(sys, "dont_write_bytecode", True):
            loader.exec_module(attacks)
        folder = attacks.LOADTEST / "attackers"
        there = {
            "py": set(re.findall(r"^def (\w+)", (folder / "attacker.py").read_text(), re.M)),
            "js": set(re.findall(r"^exports\.(\w+)", (folder / "attacker.js").read_text(), re.M)),
        }
        used = {(step.language, step.function) for attack in attacks.ATTACKS.values() for step in attack.steps}
        used |= {("py", "ok"), ("js", "ok")}
        self.assertEqual(used, {(language, name) for language, names in there.items() for name in names})


class Bars(unittest.TestCase):
    def test_ratios_are_medians_over_rounds(self):
        runs = {"fnmesh-python": [run(80), run(90), run(10)], "nginx": [run(100)] * 3}
        bar = bars.at_least(runs, "fnmesh-python", "nginx", 0.82)
        self.assertEqual((bar.measured, bar.met), (0.8, False))
        self.assertTrue(bars.at_least(runs, "fnmesh-python", "nginx", 0.8).met)

    def test_what_was_not_run_is_neither_met_nor_missed(self):
        self.assertEqual({bar.met for bar in bars.all_bars({})}, {None})
        self.assertIn("not measured", bars.at_least({}, "fnmesh-node", "deno", 1.0).row)

    def test_a_cost_may_not_be_over_its_limit(self):
        runs = {"fnmesh-node": [run(50)], "nginx": [run(100)]}
        self.assertEqual(bars.at_most(runs, "fnmesh-node", "nginx", 1.9, "CPU", lambda run: run.cpu_us).met, False)
        self.assertEqual(bars.at_most(runs, "fnmesh-node", "nginx", 2.1, "CPU", lambda run: run.cpu_us).met, True)

    def test_one_error_misses(self):
        self.assertFalse(bars.without_errors({"fnmesh-node": [run(1), run(1, errors=1)]}, "fnmesh-node").met)


class Document(unittest.TestCase):
    def results(self) -> document.Results:
        closed = {count: {"nginx": [run(100)], "fnmesh-python": [run(80)]} for count in (1, 64)}
        opened = {0.3: {"nginx": open_run(), "fnmesh-python": open_run()}}
        return document.Results("make bench", {"kernel": "6.1"}, {"nginx": "1.22"}, {"deno": "no network"}, closed, opened)

    def test_says_all_that_was_measured_and_what_was_not(self):
        text = document.render(self.results())
        for part in ("### 1 connection\n", "### 64 connections", "### 30% of", "deno: no network", "kernel: 6.1", "**no**"):
            self.assertIn(part, text)
        self.assertEqual(text.count("| fnmesh-python |"), 3)

    def test_readme_keeps_all_but_its_table(self):
        text = "a\n<!-- bench: begin; by x -->\nold\n<!-- bench: end -->\nz\n"
        self.assertEqual(document.with_table(text, "new"), text.replace("old", "new"))
        with self.assertRaises(SystemExit):
            document.with_table("no marks", "new")

    def test_this_readme_has_the_marks(self):
        self.assertIn("| new |", document.with_table((document.ROOT / "README.md").read_text(), "| new |"))

    def test_chart_is_xml_with_the_longest_bar_first(self):
        image = ElementTree.fromstring(document.draw(self.results()))
        texts = [element.text for element in image.iter("{http://www.w3.org/2000/svg}text")]
        self.assertLess(texts.index("nginx"), texts.index("fnmesh-python"))
        rows = chart.draw("<&>", "", [chart.Bar("a", 0.5, "", False), chart.Bar("b", 2.0, "", True)])
        bars_drawn = ElementTree.fromstring(rows).iter("{http://www.w3.org/2000/svg}rect")
        self.assertEqual([float(bar.get("width")) for bar in bars_drawn], [chart.WIDTH, chart.WIDTH / 4])


class Peers(unittest.TestCase):
    def test_every_folder_is_used_and_every_version_exact(self):
        folders = {path.name for path in peers.SOURCES.iterdir()}
        self.assertEqual(folders, {peer.folder for peer in peers.PEERS.values()} | set(bars.OURS))
        for name, peer in peers.PEERS.items():
            if peer.package:
                version = peers.versions(peers.SOURCES / peer.folder)[peer.package.lower()]
                self.assertRegex(version, r"^\d+(\.\d+)+$", name)

    def test_locks_name_no_registry(self):
        for lock in peers.SOURCES.glob("*/package-lock.json"):
            self.assertNotIn('"resolved"', lock.read_text(), lock)

    def test_installs_once_and_again_after_a_change(self):
        with self.folders({"server.js": "1"}) as (source, cache):
            first = peers.install(peers.Peer("one", (), "")).home
            (first / "mark").touch()
            self.assertEqual(peers.install(peers.Peer("one", (), "")).home, first)
            self.assertTrue((first / "mark").exists())
            (source / "server.js").write_text("2")
            second = peers.install(peers.Peer("one", (), "")).home
            self.assertEqual([path.name for path in cache.iterdir()], [second.name])
            self.assertEqual((second / "server.js").read_text(), "2")

    def test_what_cannot_be_installed_says_why_and_is_tried_again(self):
        with self.folders({"package.json": "this is no JSON"}) as (_, cache):
            for _ in range(2):
                with self.assertRaisesRegex(peers.Missing, "npm install.*ended with status"):
                    peers.install(peers.Peer("one", (), ""))
            self.assertEqual([path.name for path in cache.iterdir()], ["unfinished-one"])

    def test_takes_the_program_that_runs(self):
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory)
            for name, text in [("a-musl", "#!/no/such/interpreter\n"), ("b-glibc", "#!/bin/sh\n")]:
                (home / name).mkdir()
                (home / name / "tool").write_text(text)
                (home / name / "tool").chmod(0o755)
            self.assertEqual(peers.binary(home, f"{home}/*/tool"), str(home / "b-glibc/tool"))
            with self.assertRaisesRegex(peers.Missing, "no program other"):
                peers.binary(home, f"{home}/*/other")

    def test_command_and_environment_are_filled_in(self):
        peer = peers.Peer("x", ("{python}", "--port", "{port}"), "", "", {"WORKERS": "{cores}"})
        installed = peers.Installed(peer, Path("/h"))
        self.assertEqual(installed.command(80), ["/h/venv/bin/python", "--port", "80"])
        environment = installed.environment(80)
        self.assertEqual((environment["PORT"], environment["WORKERS"]), ("80", str(peers.cores())))

    @contextlib.contextmanager
    def folders(self, files: dict[str, str]):
        with tempfile.TemporaryDirectory() as directory:
            sources, cache = Path(directory, "peers"), Path(directory, "cache")
            (sources / "one").mkdir(parents=True)
            for name, text in files.items():
                (sources / "one" / name).write_text(text)
            with mock.patch.object(peers, "SOURCES", sources), mock.patch.object(peers, "CACHE", cache):
                yield sources / "one", cache


class Servers(unittest.TestCase):
    def test_a_server_that_ends_is_missing_with_the_reason(self):
        peer = peers.Peer("x", ("sh", "-c", "exit 7"), "")
        with self.assertRaisesRegex(peers.Missing, "ended with status 7: sh -c exit 7"):
            with servers.peer(peers.Installed(peer, Path("/"))):
                self.fail("it does not serve")

    def test_a_program_that_is_not_there_is_missing(self):
        with self.assertRaisesRegex(peers.Missing, "no-such-program"):
            with servers.peer(peers.Installed(peers.Peer("x", ("no-such-program",), ""), Path("/"))):
                self.fail("it does not serve")

    def test_a_peer_is_up_once_it_merges(self):
        installed = peers.Installed(peers.PEERS["node-http"], peers.SOURCES / "node-http")
        with servers.peer(installed) as server:
            self.assertEqual(server.call("/", ["a", "b"]), (200, b'"ab"'))

    def test_stop_ends_the_whole_session(self):
        script = "trap '' TERM; cat & echo $!; wait; wait"
        server = subprocess.Popen(
            ["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        child = int(server.stdout.readline())
        patience, servers.STOP_SECONDS = servers.STOP_SECONDS, 0.05
        try:
            servers.stop(server)
        finally:
            servers.STOP_SECONDS = patience
            server.stdin.close()
            server.stdout.close()
        self.assertIsNotNone(server.returncode)
        # The child of an ended parent belongs to init, which may take a moment to reap it.
        states = [line for line in _status(child) if line.startswith("State:")]
        self.assertTrue(all("zombie" in state or "dead" in state for state in states), states)


class Wan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        loader = SourceFileLoader("wan", str(Path(__file__).resolve().parent.parent / "wan"))
        cls.wan = module_from_spec(spec_from_loader("wan", loader))
        with mock.patch.dict(sys.modules, wan=cls.wan), mock.patch.object(sys, "dont_write_bytecode", True):
            loader.exec_module(cls.wan)

    def met(self, kept_up: float = 1.0, bad: int = 0, **p99: float) -> dict[str, str]:
        names = {"far": "far", "large": "far, large answers", "fast": "far, fast"}
        rounds = {names[case]: [self.wan.Round(kept_up, 20.0, ms, ms, bad, (), {}, 1.0, 0.1)] for case, ms in p99.items()}
        return {demand[0]: demand[-1] for demand in self.wan.bars(rounds)}

    def test_bars_are_met_up_to_their_limits(self):
        met = self.met(kept_up=0.98, far=60.0, large=80.0, fast=100.0)
        self.assertEqual(len(met), 5)
        self.assertEqual(set(met.values()), {"yes"})

    def test_each_bar_can_be_missed(self):
        for missed, figures in (
            ("far: p99", dict(far=60.1)),
            ("far, large answers: added", dict(far=30.0, large=50.1)),
            ("far, fast: p99", dict(fast=100.1)),
            ("far, fast: answered in time", dict(fast=50.0, kept_up=0.97)),
            ("calls without a right answer", dict(far=30.0, bad=1)),
        ):
            self.assertEqual([what.startswith(missed) for what, met in self.met(**figures).items() if met != "yes"], [True], missed)


def _status(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


if __name__ == "__main__":
    unittest.main()

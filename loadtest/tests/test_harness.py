import os
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import proc, report, servers, wrk


def run(requests: int, other_load: float = 0.0, errors: int = 0) -> wrk.Run:
    return wrk.Run(requests, 2.0, 500, 900, 1000, errors, 0, 0.1, 2**20, other_load)


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

    def test_cpu_time_of_ended_children_stays(self):
        before = proc.cpu_seconds(os.getpid())
        subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
        self.assertGreater(proc.cpu_seconds(os.getpid()), before)


class Wrk(unittest.TestCase):
    LINE = (
        '{"duration_us":2000000,"requests":1000,"p50_us":500,"p99_us":900,"max_us":1000,'
        '"connect":1,"read":2,"write":3,"timeout":4,"status":5}'
    )

    def test_reads_the_last_line(self):
        parsed = wrk.parse(f"Running 2s test\n  1000 requests\n{self.LINE}\n", 0.25, 2**20, 0.5)
        self.assertEqual((parsed.per_second, parsed.cpu_us), (500.0, 250.0))
        self.assertEqual((parsed.socket_errors, parsed.status_errors, parsed.errors), (10, 5, 15))
        self.assertEqual(parsed.other_load, 0.25)


class Report(unittest.TestCase):
    def test_ratios_are_taken_by_round(self):
        self.assertEqual(report.ratios([run(50), run(60)], [run(100), run(80)]), [0.5, 0.75])
        self.assertEqual(report.ratios([run(50)], None), [])

    def test_comparison_has_a_row_per_server(self):
        text = report.comparison({"nginx": [run(100)], "python": [run(80, errors=2)]}, "nginx")
        head, rule, nginx, python = text.split("\n")
        self.assertEqual(len({len(line) for line in (head, rule, nginx, python)}), 1, "columns line up")
        self.assertEqual([cell.strip() for cell in python.split("|")][1:5], ["python", "40", "0.80", "0.80"])
        self.assertEqual(python.split("|")[7].strip(), "2")

    def test_loud_rounds_are_named(self):
        self.assertIn("python round 2", report.noise({"python": [run(1), run(1, other_load=0.5)]}))
        self.assertNotIn("round", report.noise({"python": [run(1)]}))


class Servers(unittest.TestCase):
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


def _status(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


if __name__ == "__main__":
    unittest.main()

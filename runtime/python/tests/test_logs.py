"""What the app prints and logs."""

import unittest

from harness import LOG, WorkerTestCase, until

FUNCTIONS = r"""
import logging, os, subprocess, sys, threading, time, warnings
print("at import")
log = logging.getLogger("shop")
def say(text="hello"):
    print(text)
    return 1
def parts():
    print("a", end=""); print("b", end="")
    print("e", file=sys.stderr, end="")
    print("c\nd\n\nlast", end="")
def records():
    log.setLevel(logging.DEBUG)
    log.debug("d"); log.info("i"); log.warning("w %d", 1); log.error("e"); log.critical("c")
    try:
        1/0
    except ZeroDivisionError:
        log.exception("failed")
def root(): logging.warning("root")
def flood(n):
    for i in range(n): sys.stdout.write("x" * 1000)
    return n
def lines(n):
    for i in range(n): print("line", i)
    return n
def long(): print("é" * 40000)
def surrogate(): print("a\ud800b")
def binary():
    sys.stdout.buffer.write(b"raw \xc3\xa9\n")
    sys.stderr.buffer.write(b"\xff\n")
    sys.stdout.flush()
    return [sys.stdout.isatty(), sys.stdout.fileno(), sys.stdout.encoding, sys.stdout.writable()]
def real(): os.write(1, b"real\n")
def child():
    return subprocess.run([sys.executable, "-c", "import sys; print('child'); print('err', file=sys.stderr); sys.exit(4)"]).returncode
def captured():
    return subprocess.run(["sh", "-c", "trap '' PIPE; echo out; cat"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
def thread():
    worker = threading.Thread(target=lambda: (print("from a thread"), print("unfinished", end="")))
    worker.start(); worker.join()
def thread_fails():
    worker = threading.Thread(target=lambda: 1/0)
    worker.start(); worker.join()
def slow():
    print("before")
    time.sleep(0.3)
    print("after")
def warn(): warnings.warn("careful")
def fails():
    print("almost")
    raise ValueError
def stdin(): return sys.stdin.read()
def not_text(): sys.stdout.write(b"x")
"""


class Logs(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def logged(self, function, body=b""):
        """Level and text of each line of a call, and its answer."""
        id = self.worker.start(function, body)
        answer = self.worker.wait(id)
        frames = [f for f in self.worker.channels[1].order if f.id == id]
        self.assertEqual(frames[-1], answer, "a line after the answer")
        self.assertTrue(all(f.kind == LOG for f in frames[:-1]))
        return [(f.aux, f.body.decode()) for f in frames[:-1]], answer

    def test_lines_belong_to_their_call(self):
        lines, answer = self.logged("say", ["one\ntwo"])
        self.assertEqual((lines, answer.value()), ([(0, "one"), (0, "two")], 1))
        self.assertIn("at import", self.worker.lines(0, 0))

    def test_parts_of_lines_are_put_together(self):
        lines, _ = self.logged("parts")
        self.assertEqual(lines, [(0, "abc"), (0, "d"), (0, ""), (0, "last"), (1, "e")])

    def test_failing_call_keeps_its_lines(self):
        self.assertEqual(self.logged("fails")[0], [(0, "almost")])

    def test_records_have_their_level(self):
        lines, _ = self.logged("records")
        self.assertEqual(lines[:6], [(10, "d"), (20, "i"), (30, "w 1"), (40, "e"), (50, "c"), (40, "failed")])
        self.assertEqual(lines[6], (40, "Traceback (most recent call last):"))
        self.assertEqual(self.logged("root")[0], [(30, "root")])

    def test_app_that_sets_up_logging_itself(self):
        source = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s|%(message)s")
def own(): logging.info("x")
"""
        worker = self.start_worker(source).ready()
        self.assertEqual(worker.value("own"), None)
        self.assertEqual([(log.aux, log.body) for log in worker.logs], [(20, b"INFO|x")])
        source = """
import logging, sys
handler = logging.StreamHandler(sys.stdout)
logging.getLogger().addHandler(handler)
def own(): logging.warning("x")
"""
        worker = self.start_worker(source).ready()
        self.assertEqual(worker.value("own"), None)
        self.assertEqual([(log.aux, log.body) for log in worker.logs], [(0, b"x")])

    def test_flood_without_newline_is_split_and_bounded(self):
        lines, answer = self.logged("flood", [5000])
        self.assertEqual(answer.value(), 5000)
        self.assertEqual(sum(len(text) for _, text in lines), 5_000_000)
        self.assertTrue(all(len(text) == 65536 for _, text in lines[:-1]))

    def test_flood_waits_for_a_node_that_does_not_read(self):
        worker = self.start_worker(FUNCTIONS).ready()
        worker.channels[1].reading.clear()
        id = worker.start("flood", [100_000])
        for _ in range(20):
            self.assertEqual(worker.value("say", channel=0), 1)

        def resident():
            with open(f"/proc/{worker.pid}/statm") as file:
                return int(file.read().split()[1]) * 4096

        self.assertLess(resident(), 60 << 20)
        worker.channels[1].reading.set()
        self.assertEqual(worker.wait(id).value(), 100_000)
        self.assertEqual(sum(map(len, worker.lines(id))), 100_000_000)

    def test_many_lines(self):
        lines, _ = self.logged("lines", [20_000])
        self.assertEqual([text for _, text in lines], [f"line {n}" for n in range(20_000)])

    def test_long_line_is_cut_between_characters(self):
        lines, _ = self.logged("long")
        self.assertEqual([len(text.encode()) for _, text in lines], [65536, 80000 - 65536])

    def test_text_that_is_no_utf8(self):
        self.assertEqual(len(self.logged("surrogate")[0]), 1)
        lines, answer = self.logged("binary")
        self.assertEqual(lines, [(0, "raw é"), (1, "\\xff")])
        self.assertEqual(answer.value(), [False, 1, "utf-8", True])
        self.assertEqual(self.worker.error("not_text")[1]["type"], "TypeError")

    def test_real_stdout_and_child_processes(self):
        self.worker.value("real")
        self.assertEqual(self.worker.value("child"), 4)
        self.assertEqual(self.worker.output("stdout").split(), ["real", "child"])
        self.assertIn("err", self.worker.output("stderr"))
        self.assertEqual(self.worker.value("captured"), "out\n")

    def test_threads_of_the_app_belong_to_no_call(self):
        self.worker.value("thread")
        until(lambda: "unfinished" in self.worker.lines(0, 0), "the last line of the thread")
        self.assertIn("from a thread", self.worker.lines(0, 0))
        self.worker.value("thread_fails")
        until(lambda: "ZeroDivisionError: division by zero" in self.worker.lines(0, 1), "the thread's traceback")

    def test_running_call_shows_its_lines(self):
        worker = self.start_worker(FUNCTIONS).ready()
        id = worker.start("slow")
        until(lambda: worker.lines(id) == ["before"], "the first line")
        self.assertEqual(worker.channels[1]._queue(id).qsize(), 0)
        worker.wait(id)
        self.assertEqual(worker.lines(id), ["before", "after"])

    def test_warnings_and_stdin(self):
        self.assertIn("UserWarning: careful", self.logged("warn")[0][0][1])
        self.assertEqual(self.worker.value("stdin"), "")


if __name__ == "__main__":
    unittest.main()

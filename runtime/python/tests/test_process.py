"""The worker as a process: crashes, forks, stop, and the end of the node."""

import os
import signal
import time
import unittest

from harness import RAISED, STOP, WorkerTestCase, frame, until

FUNCTIONS = r"""
import atexit, ctypes, multiprocessing, os, signal, subprocess, sys, threading, time
import fnmesh
def ok(): return 1
def pid(): return os.getpid()
def exits(): sys.exit("bye")
def interrupts(): raise KeyboardInterrupt
def dies(status): os._exit(status)
def segfaults(): ctypes.string_at(0)
def hangs(): time.sleep(60)
def holds_gil(seconds): ctypes.PyDLL(None).usleep(int(seconds * 1e6))
def forks_and_returns():
    pid = os.fork()
    if pid == 0:
        print("in the fork", end="")
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 0
def forks_and_raises():
    pid = os.fork()
    if pid == 0:
        raise ValueError("child")
    os.waitpid(pid, 0)
    return "parent"
def forks_in_generator():
    yield 1
    pid = os.fork()
    if pid: os.waitpid(pid, 0)
    yield 2
async def forks_in_coroutine():
    pid = os.fork()
    if pid: os.waitpid(pid, 0)
    return "parent"
def double(n):
    print("doubling")
    return 2 * n
def pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(double, [1, 2, 3])
def open_channels():
    pid = os.fork()
    if pid == 0:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in (3, 4)]
        os._exit(0 if links == ["/dev/null"] * 2 else 1)
    return os.waitpid(pid, 0)[1]
def inherited():
    return subprocess.run("ls -l /proc/self/fd", shell=True, close_fds=False, capture_output=True, text=True).stdout
def sigpipe():
    return subprocess.run("yes | head -1", shell=True, capture_output=True, text=True, executable="/bin/bash").stdout.strip()
def context():
    return [fnmesh.invocation_id(), fnmesh.remaining(), fnmesh.traceparent()]
def background():
    def run():
        while True: time.sleep(0.01)
    threading.Thread(target=run).start()
def at_exit(): atexit.register(print, "exit handler")
def at_exit_hangs(): atexit.register(time.sleep, 60)
def alarm():
    # Only the main thread may do this.
    return threading.current_thread() is threading.main_thread()
"""


class Process(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def test_exit_exceptions_are_failures_like_others(self):
        for function, type in (("exits", "SystemExit"), ("interrupts", "KeyboardInterrupt")):
            code, failure = self.worker.error(function)
            self.assertEqual((code, failure["type"]), (RAISED, type))
        self.assertEqual(self.worker.value("ok"), 1)

    def test_what_ends_the_process_ends_it(self):
        for function, body, status in (("dies", [7], 7), ("segfaults", [], -signal.SIGSEGV)):
            worker = self.start_worker(FUNCTIONS).ready()
            worker.start(function, body)
            self.assertEqual(worker.exit_status(), status)

    def test_end_of_the_node_ends_the_worker_at_once(self):
        for calls in ([], [("hangs", [])], [("holds_gil", [3])]):
            worker = self.start_worker(FUNCTIONS).ready()
            for function, body in calls:
                worker.start(function, body)
            # Whatever the calls do by now, the worker must go.
            worker.channels[0].socket.shutdown(2)
            worker.channels[0].socket.close()
            started = time.monotonic()
            self.assertEqual(worker.exit_status(), 0)
            self.assertLess(time.monotonic() - started, 2.5, calls)

    def test_interrupt_key_is_the_nodes_business(self):
        os.kill(self.worker.pid, signal.SIGINT)
        self.assertEqual(self.worker.value("ok"), 1)

    def test_context(self):
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        id = self.worker.start("context", budget=5000, extra={"traceparent": parent})
        invocation, remaining, traceparent = self.worker.wait(id).value()
        self.assertEqual((invocation, traceparent), (f"{id:032x}", parent))
        self.assertTrue(0 < remaining <= 5)
        self.assertEqual(self.worker.value("context", budget=0)[1:], [0.0, None])

    def test_context_outside_calls(self):
        source = "import fnmesh\nimported = [fnmesh.invocation_id(), fnmesh.remaining(), fnmesh.traceparent()]\ndef f(): return imported"
        self.assertEqual(self.start_worker(source).ready().value("f"), [None, None, None])


class Forks(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def test_fork_never_answers(self):
        self.assertEqual(self.worker.value("forks_and_returns"), 0)
        self.assertIn("in the fork", self.worker.output("stdout"))
        self.assertEqual(self.worker.value("forks_and_raises"), "parent")
        self.assertEqual(self.worker.value("forks_in_coroutine"), "parent")
        id = self.worker.start("forks_in_generator")
        self.assertEqual([self.worker.wait(id).body for _ in range(3)], [b"1", b"2", b""])
        self.assertEqual(self.worker.value("ok"), 1)
        self.assertEqual(self.worker.channels[1]._queue(id).qsize(), 0)

    def test_fork_lets_go_of_the_channels(self):
        self.assertEqual(self.worker.value("open_channels"), 0)

    def test_process_pool(self):
        self.assertEqual(self.worker.value("pool"), [2, 4, 6])
        self.assertEqual(self.worker.output("stdout").count("doubling"), 3)

    def test_programs_do_not_inherit_channels(self):
        listed = self.worker.value("inherited")
        self.assertIn("/proc/", listed)
        self.assertNotIn("socket:", listed)
        self.assertNotIn("eventfd", listed)

    def test_pipes_of_programs_work(self):
        self.assertEqual(self.worker.value("sigpipe"), "y")


class Stop(WorkerTestCase):
    def test_exit_handlers_run_and_threads_do_not_matter(self):
        worker = self.start_worker(FUNCTIONS).ready()
        worker.value("background")
        worker.value("at_exit")
        self.assertEqual(worker.stop(), 0)
        self.assertEqual(worker.lines(), ["exit handler"])

    def test_hanging_exit_handler_is_not_waited_for(self):
        worker = self.start_worker(FUNCTIONS).ready()
        worker.value("at_exit_hangs")
        self.assertEqual(worker.stop(), 0)

    def test_stop_from_another_leader_than_the_main_thread(self):
        worker = self.start_worker(FUNCTIONS).ready()
        worker.start("hangs")
        self.assertEqual(worker.value("ok"), 1)
        self.assertEqual(worker.stop(), 0)

    def test_logs_at_stop_arrive(self):
        source = "def __metacall_finalize__():\n    for n in range(20000): print('x' * 100)\ndef f(): ..."
        worker = self.start_worker(source).ready()
        worker.channels[0].reading.clear()
        worker.channels[0].send(frame(STOP))
        worker.channels[0].reading.set()
        self.assertEqual(worker.exit_status(), 0)
        until(lambda: len(worker.lines(0)) == 20000, "all lines")


if __name__ == "__main__":
    unittest.main()

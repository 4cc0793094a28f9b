"""Calls at once: leadership passes on, so that slow functions do not hold up others."""

import os
import subprocess
import sys
import threading
import time
import unittest

from harness import ERROR, INTERNAL, PING, PONG, RESULT, WorkerTestCase, frame, until

FUNCTIONS = """
import threading, time
gate = threading.Event()
def fast(n=1): return n
def sleep(seconds): time.sleep(seconds); return seconds
def wait(): return gate.wait(20)
def open_gate(): gate.set()
def thread(): return threading.get_ident()
def burn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
    return seconds
active, most = 0, 0
def compute(seconds):
    global active, most
    active += 1
    most = max(most, active)
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
    active -= 1
def most_at_once(): return most
def big(n): return "x" * n
def fail(): raise ValueError
def panic(seconds=0):
    time.sleep(seconds)
    raise next(kind for kind in BaseException.__subclasses__() if kind.__name__ == "PanicException")
local = threading.local()
def visits():
    local.n = getattr(local, "n", 0) + 1
    return [threading.get_ident(), local.n]
"""


class Threads(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def threads(self, worker):
        return len(os.listdir(f"/proc/{worker.pid}/task"))

    def test_fast_calls_share_one_thread(self):
        invocations = [self.worker.invocation("thread") for _ in range(500)]
        self.worker.channels[1].send(*invocations)
        self.assertEqual(len({self.worker.wait(i.id).body for i in invocations}), 1)

    def test_first_blocking_call_does_not_hold_up_others(self):
        worker = self.start_worker(FUNCTIONS).ready()
        waiting = worker.start("wait")
        for n in range(100):
            self.assertEqual(worker.value("fast", [n]), n)
            self.assertEqual(worker.value("fast", [n], channel=0), n)
        worker.value("open_gate")
        self.assertEqual(worker.wait(waiting).value(), True)

    def test_calls_behind_a_blocking_one_in_the_same_read_are_served(self):
        worker = self.start_worker(FUNCTIONS).ready()
        wait, fast, gate = worker.invocation("wait"), worker.invocation("fast"), worker.invocation("open_gate")
        worker.channels[1].send(wait, fast, gate)
        for invocation in (fast, gate, wait):
            self.assertEqual(worker.wait(invocation.id).kind, RESULT)

    def test_sleepers_run_at_once_while_a_fast_function_answers(self):
        worker = self.start_worker(FUNCTIONS).ready()
        started = time.monotonic()
        sleepers = [worker.invocation("sleep", [0.2]) for _ in range(64)]
        worker.channels[1].send(*sleepers)
        latencies = []
        while not all(worker.channels[1]._queue(s.id).qsize() for s in sleepers):
            begun = time.monotonic()
            self.assertEqual(worker.value("fast", [2], channel=0), 2)
            latencies.append(time.monotonic() - begun)
        elapsed = time.monotonic() - started
        # One after the other they would take 12.8 s.
        self.assertLess(elapsed, 4)
        self.assertGreater(len(latencies), 20)
        self.assertLess(sorted(latencies)[len(latencies) // 2], 0.05)

    def test_threads_are_reused_and_bounded(self):
        worker = self.start_worker(FUNCTIONS, concurrency=4).ready()
        before = self.threads(worker)
        for _ in range(5):
            sleepers = [worker.start("sleep", [0.02]) for _ in range(16)]
            for id in sleepers:
                self.assertEqual(worker.wait(id).value(), 0.02)
        # The main thread is the fifth.
        self.assertLessEqual(self.threads(worker) - before, 4)

    def test_function_that_got_fast_runs_inline_again(self):
        worker = self.start_worker(FUNCTIONS).ready()
        worker.value("sleep", [0.05])
        leaders = [worker.value("sleep", [0]) for _ in range(20)]
        self.assertEqual(leaders, [0] * 20)
        # Inline calls in one read are answered by one thread.
        self.assertEqual(len({worker.value("thread") for _ in range(20)}), 1)

    def test_computing_call_leaves_room_for_others(self):
        worker = self.start_worker(FUNCTIONS).ready()
        burning = worker.start("burn", [0.5])
        answered = 0
        while not worker.channels[1]._queue(burning).qsize():
            self.assertEqual(worker.value("fast"), 1)
            answered += 1
        self.assertGreater(answered, 20)

    def test_calls_that_compute_run_one_after_the_other(self):
        worker = self.start_worker(FUNCTIONS).ready()
        calls = [worker.invocation("compute", [0.005]) for _ in range(60)]
        worker.channels[1].send(*calls)
        for call in calls:
            self.assertEqual(worker.wait(call.id).kind, RESULT)
        # Each on a thread of its own they would all run at once. One that others kept from its core for long gets company.
        self.assertLess(worker.value("most_at_once"), 10)

    def test_calls_that_compute_stay_few_where_others_want_their_core(self):
        # Who else computes on this machine takes part of that core, too: then another round may do better.
        self.assertTrue(any(self.most_at_once_on_a_shared_core() < 4 for _ in range(5)))

    def most_at_once_on_a_shared_core(self):
        worker = self.start_worker(FUNCTIONS).ready()
        core = min(os.sched_getaffinity(0))
        for thread in os.listdir(f"/proc/{worker.pid}/task"):
            os.sched_setaffinity(int(thread), {core})
        # It has a quarter of the core.
        other = f"import os; os.sched_setaffinity(0, {{{core}}}); os.nice(5)\nwhile True: pass"
        other = subprocess.Popen([sys.executable, "-c", other])
        try:
            calls = [worker.invocation("compute", [0.005]) for _ in range(200)]
            worker.channels[1].send(*calls)
            for call in calls:
                self.assertEqual(worker.wait(call.id).kind, RESULT)
        finally:
            other.kill()
            other.wait()
        return worker.value("most_at_once")

    def test_call_that_computes_for_long_does_not_keep_others_waiting(self):
        worker = self.start_worker(FUNCTIONS).ready()
        burning = worker.start("burn", [1.5])
        worker.channels[1].send(fast := worker.invocation("fast", [7]))
        self.assertEqual(worker.wait(fast.id).value(), 7)
        self.assertFalse(worker.channels[1]._queue(burning).qsize(), "the other call should run still")
        worker.wait(burning)

    def test_channel_full_of_calls_that_compute_does_not_hold_up_others(self):
        worker = self.start_worker(FUNCTIONS, channels=3).ready()
        # So long that leadership changes with each of them.
        calls = [worker.invocation("compute", [0.04]) for _ in range(40)]
        worker.channels[1].send(*calls)
        self.assertEqual(worker.value("fast", [8], channel=2), 8)
        self.assertFalse(worker.channels[1]._queue(calls[30].id).qsize(), "the other channel should not come last")
        for call in calls:
            worker.wait(call.id)

    def test_thread_state_lasts(self):
        seen = dict(self.worker.value("visits") for _ in range(50))
        self.assertGreater(max(seen.values()), 40)

    def test_ping_is_answered_on_each_channel_while_a_call_blocks(self):
        worker = self.start_worker(FUNCTIONS).ready()
        waiting = worker.start("wait")
        for number, channel in enumerate(worker.channels):
            channel.send(frame(PING, 77 + number))
            answer = channel.next(77 + number)
            self.assertEqual((answer.kind, answer.id), (PONG, 77 + number))
        worker.value("open_gate")
        worker.wait(waiting)

    def test_many_channels(self):
        worker = self.start_worker(FUNCTIONS, channels=9).ready()
        ids = [(channel, worker.start("fast", [channel], channel)) for channel in range(9) for _ in range(10)]
        for channel, id in ids:
            self.assertEqual(worker.wait(id, channel).value(), channel)

    def test_same_id_on_two_channels_is_two_calls(self):
        a = self.worker.invocation("fast", [1], id=9999)
        b = self.worker.invocation("fast", [2], id=9999)
        self.worker.channels[0].send(a)
        self.worker.channels[1].send(b)
        self.assertEqual(self.worker.wait(9999, 0).value(), 1)
        self.assertEqual(self.worker.wait(9999, 1).value(), 2)

    def test_panic_fails_only_the_call_it_happened_in(self):
        worker = self.start_worker(FUNCTIONS).ready()
        # Makes PyO3's exception for panics. The worker's own code panics when it fetches that.
        worker.error("fail")
        # Inline; then with leadership taken meanwhile; then on a thread beside the leader.
        for seconds in 0, 0.05, 0.05:
            first, panic, last = calls = [
                worker.invocation("fast", [1]),
                worker.invocation("panic", [seconds]),
                worker.invocation("fast", [2]),
            ]
            worker.channels[1].send(*calls)
            self.assertEqual([worker.wait(call.id).value() for call in (first, last)], [1, 2])
            answer = worker.wait(panic.id)
            self.assertEqual((answer.kind, answer.aux), (ERROR, INTERNAL))
            self.assertIn("the worker panicked", str(answer.value()))

    def test_frames_in_small_pieces(self):
        data = b"".join(self.worker.invocation("fast", [n], id=5000 + n).encode() for n in range(20))
        for start in range(0, len(data), 7):
            self.worker.channels[1].socket.sendall(data[start : start + 7])
        self.assertEqual([self.worker.wait(5000 + n).value() for n in range(20)], list(range(20)))


class Backpressure(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def test_unread_channel_does_not_hold_up_others(self):
        worker = self.worker
        stuck = worker.channels[1]
        stuck.reading.clear()
        ids = [worker.start("big", [1 << 20]) for _ in range(20)]
        for n in range(50):
            self.assertEqual(worker.value("fast", [n], channel=0), n)
        stuck.reading.set()
        for id in ids:
            self.assertEqual(len(worker.wait(id).body), (1 << 20) + 2)
        self.assertEqual(worker.value("fast", [1]), 1)

    def test_large_answers_arrive_whole(self):
        self.assertEqual(self.worker.call("big", [30 << 20]).body, b'"' + b"x" * (30 << 20) + b'"')

    def test_both_directions_full_at_once(self):
        worker = self.worker
        ids = list(range(100000, 100400))
        frames = b"".join(worker.invocation("big", b"[30000]" + b" " * 30000, id=id).encode() for id in ids)
        writer = threading.Thread(target=worker.channels[1].socket.sendall, args=(frames,))
        writer.start()
        for id in ids:
            self.assertEqual(len(worker.wait(id).body), 30002)
        writer.join()

    def test_closed_channel_leaves_the_others(self):
        worker = self.start_worker(FUNCTIONS, channels=3).ready()
        worker.start("big", [5 << 20], 1)
        worker.channels[1].socket.shutdown(2)
        worker.channels[1].socket.close()
        for n in range(20):
            self.assertEqual(worker.value("fast", [n], channel=2), n)
        self.assertEqual(worker.stop(), 0)

    def test_idle_worker_sleeps(self):
        worker = self.start_worker(FUNCTIONS).ready()
        worker.value("fast")

        def switches():
            total = 0
            for task in os.listdir(f"/proc/{worker.pid}/task"):
                with open(f"/proc/{worker.pid}/task/{task}/status") as file:
                    total += int(next(line for line in file if line.startswith("voluntary")).split()[1])
            return total

        def quiet():
            before = switches()
            time.sleep(0.1)
            return switches() == before

        until(quiet, "all threads to sleep")
        self.assertEqual(worker.value("fast", [3]), 3)


if __name__ == "__main__":
    unittest.main()

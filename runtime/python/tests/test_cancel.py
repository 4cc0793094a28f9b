"""Cancelling calls that run on a thread."""

import unittest

from harness import CANCELLED, RESULT, WorkerTestCase, until

FUNCTIONS = """
import threading, time
import fnmesh
running, events = set(), []
def spin(tag):
    running.add(tag)
    try:
        while True: time.sleep(0.002)
    except fnmesh.Cancelled:
        events.append("cancelled " + tag)
        raise
    finally:
        events.append("finally " + tag)
def polite(tag):
    try:
        spin(tag)
    except Exception:
        events.append("Exception catches it")
def stubborn(tag):
    try:
        spin(tag)
    except BaseException:
        return "swallowed"
def blocked(gate=threading.Event()):
    running.add("blocked")
    gate.wait(0.3)
    return "late"
def short(): return 1
burnt = []
def burn(n):
    end = time.thread_time() + 0.01
    while time.thread_time() < end: pass
    burnt.append(n)
def burnt_so_far(): return burnt
def count(n):
    total = 0
    for i in range(n): total += i
    return total
def seen(): return [sorted(running), events]
"""


class Cancel(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def run_until_started(self, function, tag):
        id = self.worker.start(function, [tag] if tag != "blocked" else [])
        until(lambda: tag in self.worker.value("seen")[0], "the call to run")
        return id

    def test_interrupts_the_call_and_no_other(self):
        first, second = self.run_until_started("spin", "a"), self.run_until_started("spin", "b")
        self.worker.cancel(first)
        answer = self.worker.wait(first)
        self.assertEqual((answer.aux, answer.value()["type"]), (CANCELLED, "Cancelled"))
        self.assertEqual(self.worker.value("seen")[1], ["cancelled a", "finally a"])
        self.worker.cancel(second)
        self.assertEqual(self.worker.wait(second).aux, CANCELLED)

    def test_call_that_waits_for_others_is_not_begun(self):
        worker = self.start_worker(FUNCTIONS).ready()
        calls = [worker.invocation("burn", [n]) for n in range(20)]
        worker.channels[1].send(*calls)
        until(lambda: worker.channels[1]._queue(calls[0].id).qsize(), "the first call to end")
        for call in calls[5:]:
            worker.cancel(call.id)
        answers = [worker.wait(call.id) for call in calls]
        burnt = worker.value("burnt_so_far")
        self.assertLess(len(burnt), 15)
        for n, answer in enumerate(answers):
            if n in burnt and answer.kind != RESULT:
                self.assertEqual(answer.aux, CANCELLED)
            self.assertEqual(answer.kind == RESULT, n in burnt)

    def test_is_no_exception_that_user_code_catches(self):
        id = self.run_until_started("polite", "p")
        self.worker.cancel(id)
        self.assertEqual(self.worker.wait(id).aux, CANCELLED)
        self.assertNotIn("Exception catches it", self.worker.value("seen")[1])

    def test_swallowed_or_late_it_still_is_the_answer(self):
        for function in ("stubborn", "blocked"):
            id = self.run_until_started(function, function)
            self.worker.cancel(id)
            self.assertEqual(self.worker.wait(id).aux, CANCELLED)

    def test_unknown_and_answered_calls(self):
        self.worker.cancel(424242)
        id = self.worker.start("short")
        self.worker.wait(id)
        self.worker.cancel(id)
        self.worker.cancel(id, channel=0)
        self.assertEqual(self.worker.value("short"), 1)

    def test_never_hits_another_call(self):
        # Calls that end about when their cancel comes, each followed at once by one that must not notice.
        for round in range(150):
            victim = self.worker.invocation("count", [30_000 + 400 * round])
            witness = self.worker.invocation("count", [20_000])
            self.worker.channels[1].send(victim)
            self.worker.channels[0].send(witness)
            self.worker.cancel(victim.id)
            answer = self.worker.wait(victim.id)
            self.assertTrue(answer.kind == RESULT or answer.aux == CANCELLED, answer)
            self.assertEqual(self.worker.wait(witness.id, 0).kind, RESULT)
        self.assertEqual(self.worker.value("short"), 1)


if __name__ == "__main__":
    unittest.main()

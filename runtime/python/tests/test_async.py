"""Coroutines: one event loop that runs many calls at once."""

import time
import unittest

from harness import CANCELLED, RAISED, WorkerTestCase, until

FUNCTIONS = """
import asyncio, contextlib, logging, sys, threading
import fnmesh
done, running = [], []
async def echo(value): return value
async def sleep(seconds):
    await asyncio.sleep(seconds)
    return seconds
async def hang(tag):
    running.append(tag)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        done.append("cancelled " + tag)
        raise
    finally:
        done.append("finally " + tag)
async def stubborn():
    running.append("stubborn")
    while "stop" not in running:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    return "too late"
async def self_cancelled(): raise asyncio.CancelledError
async def leaves(): sys.exit(3)
async def orphan():
    async def leave(): raise SystemExit
    asyncio.ensure_future(leave())
    await asyncio.sleep(0.02)
    return "alive"
async def thread(): return threading.get_ident()
async def who(tag):
    first = fnmesh.invocation_id()
    await asyncio.sleep(0.01)
    print("from", tag)
    in_thread = await asyncio.to_thread(lambda: (print("thread", tag), fnmesh.invocation_id())[1])
    return [first, fnmesh.invocation_id(), in_thread]
async def logs():
    print("half", end="")
    print("err", file=sys.stderr)
    logging.warning("warned")
def indirect(value): return echo(value)
def events(): return [running, done]
def stop(): running.append("stop")
def fast(): return 1
async def unsendable(): return object()
"""


class Coroutines(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def test_values_and_failures(self):
        self.assertEqual(self.worker.value("echo", [[1, "é"]]), [1, "é"])
        self.assertEqual(self.worker.value("indirect", [5]), 5)
        self.assertEqual(self.worker.error("unsendable")[1]["type"], "ResultError")
        self.assertEqual(self.worker.error("self_cancelled")[0], RAISED)
        code, failure = self.worker.error("leaves")
        self.assertEqual((code, failure["type"]), (RAISED, "SystemExit"))
        self.assertEqual(self.worker.value("orphan"), "alive")
        self.assertEqual(self.worker.value("echo", [1]), 1)

    def test_many_at_once(self):
        started = time.monotonic()
        invocations = [self.worker.invocation("sleep", [0.2]) for _ in range(100)]
        self.worker.channels[1].send(*invocations)
        for invocation in invocations:
            self.assertEqual(self.worker.wait(invocation.id).value(), 0.2)
        self.assertLess(time.monotonic() - started, 4)

    def test_all_on_one_thread_of_their_own(self):
        self.assertEqual(len({self.worker.value("thread") for _ in range(10)}), 1)

    def test_each_knows_its_call(self):
        ids = [self.worker.start("who", [str(n)]) for n in range(20)]
        for n, id in enumerate(ids):
            self.assertEqual(self.worker.wait(id).value(), [f"{id:032x}"] * 3)
            self.assertEqual(self.worker.lines(id), [f"from {n}", f"thread {n}"])

    def test_logs_arrive_before_the_answer(self):
        id = self.worker.start("logs")
        self.worker.wait(id)
        frames = [(f.aux, f.body) for f in self.worker.channels[1].order if f.id == id]
        self.assertEqual(sorted(frames[:3]), [(0, b"half"), (1, b"err"), (30, b"warned")])
        self.assertEqual(frames[3], (0, b"null"))

    def test_cancel_reaches_the_task_alone(self):
        hanging, other = self.worker.start("hang", ["a"]), self.worker.start("sleep", [0.1])
        until(lambda: "a" in self.worker.value("events")[0], "the call to run")
        self.worker.cancel(hanging)
        self.assertEqual(self.worker.wait(hanging).aux, CANCELLED)
        self.assertEqual(self.worker.wait(other).value(), 0.1)
        self.assertEqual(self.worker.value("events")[1], ["cancelled a", "finally a"])

    def test_cancel_before_it_began(self):
        for _ in range(20):
            invocation = self.worker.invocation("sleep", [30])
            self.worker.channels[1].send(invocation, self.worker.invocation("fast"))
            self.worker.cancel(invocation.id)
            self.assertEqual(self.worker.wait(invocation.id).aux, CANCELLED)

    def test_value_after_cancel_is_dropped(self):
        id = self.worker.start("stubborn")
        until(lambda: "stubborn" in self.worker.value("events")[0], "the call to run")
        self.worker.cancel(id)
        self.worker.value("stop")
        self.assertEqual(self.worker.wait(id).aux, CANCELLED)

    def test_asyncio_is_not_imported_without_need(self):
        worker = self.start_worker("import sys\ndef loaded(): return sorted({'asyncio', 'inspect', 'logging'} & set(sys.modules))")
        bare = self.start_worker("import sys\nbefore = set(sys.modules)\ndef loaded(): return []").ready()
        self.assertEqual(worker.ready().value("loaded"), bare.value("loaded"))


if __name__ == "__main__":
    unittest.main()

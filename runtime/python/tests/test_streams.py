"""Streams: generators and iterators, as fast as the caller takes their items."""

import unittest

from harness import BYTES, CANCELLED, CHUNK, ERROR, JSON, NONE, RAISED, RESULT, TEXT, WorkerTestCase, until

FUNCTIONS = """
import asyncio, time
import fnmesh
events, made = [], []
def count(n):
    for i in range(n):
        made.append(i)
        yield i
async def acount(n):
    for i in range(n):
        made.append(i)
        yield i
def mixed():
    yield b"bytes"; yield "text"; yield {"a": 1}; yield None; yield ""
async def amixed():
    yield b"bytes"; yield "text"; yield {"a": 1}; yield None; yield ""
def fails():
    yield 1
    raise ValueError("after one")
async def afails():
    yield 1
    raise ValueError("after one")
def unsendable():
    try:
        yield 1
        yield [object()]
    finally:
        events.append("unsendable closed")
def endless(tag):
    try:
        while True: yield tag
    finally:
        events.append("closed " + tag)
async def aendless(tag):
    try:
        while True: yield tag
    finally:
        await asyncio.sleep(0)
        events.append("closed " + tag)
def sleepy(tag):
    try:
        yield 0
        while True: time.sleep(0.01)
    except fnmesh.Cancelled:
        events.append("cancelled " + tag)
        raise
def swallows():
    while True:
        try:
            yield 1
        except GeneratorExit:
            pass
def returned(n): return (i for i in range(n))
def mapped(): return map(str, [1, 2])
def afrom_plain(n): return acount(n)
async def async_returns_generator(n): return count(n)
async def async_returns_async(n): return acount(n)
def noisy():
    print("one"); yield 1
    print("two"); yield 2
    print("rest", end="")
def seen(): return events
def produced(): return len(made)
def reset(): made.clear()
def fast(): return 1
"""


class Streams(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def stream(self, function, body=b"", chunks=10):
        id = self.worker.start(function, body)
        self.worker.credit(id, chunks)
        frames = [self.worker.wait(id)]
        while frames[-1].kind == CHUNK:
            frames.append(self.worker.wait(id))
        return frames[:-1], frames[-1]

    def test_formats_of_items(self):
        for function in ("mixed", "amixed"):
            chunks, end = self.stream(function)
            expected = [(BYTES, b"bytes"), (TEXT, "text"), (JSON, {"a": 1}), (JSON, None), (TEXT, "")]
            self.assertEqual([(chunk.format, chunk.value()) for chunk in chunks], expected)
            self.assertEqual((end.kind, end.format, end.body), (RESULT, NONE, b""))

    def test_whatever_yields(self):
        for function in ("count", "acount", "returned", "afrom_plain", "async_returns_generator", "async_returns_async"):
            chunks, end = self.stream(function, [3])
            self.assertEqual([chunk.value() for chunk in chunks], [0, 1, 2], function)
            self.assertEqual(end.kind, RESULT)
        self.assertEqual([chunk.value() for chunk in self.stream("mapped")[0]], ["1", "2"])
        self.assertEqual(self.stream("count", [0])[0], [])

    def test_failure_ends_the_stream(self):
        for function in ("fails", "afails"):
            chunks, end = self.stream(function)
            self.assertEqual([chunk.value() for chunk in chunks], [1])
            self.assertEqual((end.kind, end.aux, end.value()["message"]), (ERROR, RAISED, "after one"))
            self.assertEqual(end.value()["stack"].count("  File "), 1)

    def test_item_that_cannot_be_sent_closes_the_generator(self):
        chunks, end = self.stream("unsendable")
        self.assertEqual((len(chunks), end.value()["type"]), (1, "ResultError"))
        self.assertEqual(end.value()["message"], "$[0]: cannot send value of type object")
        self.assertIn("unsendable closed", self.worker.value("seen"))

    def test_stops_without_credit_and_goes_on_with_it(self):
        for function in ("count", "acount"):
            self.worker.value("reset")
            id = self.worker.start(function, [100])
            values = [self.worker.wait(id).value() for _ in range(16)]
            # One item is made ahead, and held until it may be sent.
            until(lambda: self.worker.value("produced") == 17, "the item ahead")
            self.assertEqual(self.worker.channels[1]._queue(id).qsize(), 0)
            self.worker.credit(id, 3)
            values += [self.worker.wait(id).value() for _ in range(3)]
            until(lambda: self.worker.value("produced") == 20, "the item ahead")
            self.assertEqual(self.worker.channels[1]._queue(id).qsize(), 0)
            self.worker.credit(id, 1000)
            values += [self.worker.wait(id).value() for _ in range(81)]
            self.assertEqual(values, list(range(100)))
            self.assertEqual(self.worker.wait(id).kind, RESULT)

    def test_many_streams_at_once(self):
        ids = [self.worker.start(function, [50]) for function in ("count", "acount") for _ in range(20)]
        self.assertEqual(self.worker.value("fast"), 1)
        for id in ids:
            self.worker.credit(id, 100)
        for id in ids:
            self.assertEqual([self.worker.wait(id).value() for _ in range(50)], list(range(50)))
            self.assertEqual(self.worker.wait(id).kind, RESULT)

    def test_cancel_closes_a_stream_that_waits_for_credit(self):
        for function in ("endless", "aendless"):
            id = self.worker.start(function, [function])
            for _ in range(16):
                self.worker.wait(id)
            self.worker.cancel(id)
            self.assertEqual(self.worker.wait(id).aux, CANCELLED)
            self.assertIn("closed " + function, self.worker.value("seen"))

    def test_cancel_interrupts_a_generator_at_work(self):
        id = self.worker.start("sleepy", ["s"])
        self.worker.wait(id)
        self.worker.cancel(id)
        self.assertEqual(self.worker.wait(id).aux, CANCELLED)
        self.assertIn("cancelled s", self.worker.value("seen"))

    def test_generator_that_refuses_to_close(self):
        id = self.worker.start("swallows")
        for _ in range(16):
            self.worker.wait(id)
        self.worker.cancel(id)
        self.assertEqual(self.worker.wait(id).aux, CANCELLED)
        self.assertEqual(self.worker.value("fast"), 1)

    def test_late_credit_and_cancel_are_ignored(self):
        id = self.worker.start("count", [1])
        self.assertEqual([self.worker.wait(id).kind for _ in range(2)], [CHUNK, RESULT])
        self.worker.credit(id, 5)
        self.worker.cancel(id)
        self.assertEqual(self.worker.value("fast"), 1)

    def test_logs_between_items(self):
        id = self.worker.start("noisy")
        for _ in range(3):
            self.worker.wait(id)
        frames = [f.body for f in self.worker.channels[1].order if f.id == id]
        self.assertEqual(frames, [b"one", b"1", b"two", b"2", b"rest", b""])


if __name__ == "__main__":
    unittest.main()

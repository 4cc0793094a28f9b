"""Functions that take the HTTP request or answer with a response of their own."""

import unittest

from harness import BYTES, CHUNK, INVALID_INPUT, JSON, NONE, RAISED, RESULT, TEXT, WorkerTestCase

FUNCTIONS = r"""
import fnmesh
from fnmesh import Request, Response

def show(request: Request):
    return {
        "method": request.method, "url": request.url, "path": request.path,
        "query": request.query, "query_string": request.query_string, "query_list": request.query_list,
        "type": request.headers["Content-TYPE"], "accept": request.headers.get_all("accept"),
        "absent": request.headers.get("x-none"), "names": sorted(request.headers),
        "cookies": request.cookies, "body": type(request.body).__name__, "text": request.text(),
    }
def parsed(request: "fnmesh.Request"): return request.json()
def optional(n: int = 3, *, request: fnmesh.Request): return [n, request.method]
def greedy(n, request: Request): ...
def answer(kind):
    if kind == "text": return Response("héllo", 201, {"X-A": 1})
    if kind == "bytes": return Response(b"\x00", headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")])
    if kind == "json": return Response({"a": [1]}, status=400)
    if kind == "empty": return Response(status=204)
    if kind == "bad status": return Response(status=99)
    if kind == "bad header": return Response(headers={"a": "b\r\nc: d"})
    if kind == "unsendable": return Response([object()])
    if kind == "stream": return Response((f"{i}\n" for i in range(2)), headers={"content-type": "text/plain"})
    if kind == "nothing": return Response(iter(()))
async def later(kind):
    if kind == "stream":
        async def items():
            yield b"one"
        return Response(items(), 202)
    return Response("later", 203)
"""
HEAD = {
    "method": "POST",
    "url": "http://h/app/show/rest?a=1&b=&a=2&c=%C3%A9",
    "path": "/rest",
    "query": "a=1&b=&a=2&c=%C3%A9",
    "headers": [
        ["content-type", "text/plain; charset=latin-1"],
        ["accept", "a"],
        ["accept", "b"],
        ["cookie", 'x=1; y="2"; x=3'],
    ],
}


class Requests(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def test_request_as_functions_see_it(self):
        shown = self.worker.value("show", b"\xe9", extra={"request": HEAD}, format=BYTES)
        expected = {
            "method": "POST",
            "url": HEAD["url"],
            "path": "/rest",
            "query": {"a": "1", "b": "", "c": "é"},
            "query_string": HEAD["query"],
            "query_list": [["a", "1"], ["b", ""], ["a", "2"], ["c", "é"]],
            "type": "text/plain; charset=latin-1",
            "accept": ["a", "b"],
            "absent": None,
            "names": ["accept", "content-type", "cookie"],
            "cookies": {"x": "1", "y": "2"},
            "body": "bytes",
            "text": "é",
        }
        self.assertEqual(shown, expected)

    def test_body_as_strict_json(self):
        self.assertEqual(self.worker.value("parsed", b"[1]", extra={"request": HEAD}), [1])
        code, failure = self.worker.error("parsed", b"[NaN]", extra={"request": HEAD})
        self.assertEqual((code, failure["type"]), (RAISED, "ValueError"))
        self.assertEqual(failure["message"], "not valid JSON: NaN and Infinity are not JSON at line 1 column 2")

    def test_other_parameters_get_their_defaults(self):
        self.assertEqual(self.worker.value("optional", b"[9]", extra={"request": HEAD}), [3, "POST"])
        code, failure = self.worker.error("greedy", extra={"request": HEAD})
        self.assertEqual(code, INVALID_INPUT)

    def test_call_without_a_request_is_refused(self):
        code, failure = self.worker.error("show", b"[1]")
        self.assertEqual(code, INVALID_INPUT)
        self.assertIn("takes the HTTP request", failure["message"])


class Responses(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def answer(self, kind, function="answer"):
        answer = self.worker.call(function, [kind])
        self.assertEqual(answer.kind, RESULT, answer)
        return answer

    def test_bodies_and_heads(self):
        text = self.answer("text")
        self.assertEqual((text.format, text.value()), (TEXT, "héllo"))
        self.assertEqual(text.head(), {"status": 201, "headers": [["X-A", "1"]]})
        data = self.answer("bytes")
        self.assertEqual((data.format, data.body), (BYTES, b"\x00"))
        self.assertEqual(data.head(), {"status": 200, "headers": [["set-cookie", "a=1"], ["set-cookie", "b=2"]]})
        value = self.answer("json")
        self.assertEqual((value.format, value.value(), value.head()["status"]), (JSON, {"a": [1]}, 400))
        empty = self.answer("empty")
        self.assertEqual((empty.format, empty.body, empty.head()["status"]), (BYTES, b"", 204))
        later = self.answer("text", "later")
        self.assertEqual((later.value(), later.head()["status"]), ("later", 203))

    def test_bad_responses_are_the_functions_failure(self):
        for kind, type in (("bad status", "ValueError"), ("bad header", "ValueError"), ("unsendable", "ResultError")):
            code, failure = self.worker.error("answer", [kind])
            self.assertEqual((code, failure["type"]), (RAISED, type))

    def test_stream_begins_with_its_head(self):
        id = self.worker.start("answer", ["stream"])
        frames = [self.worker.wait(id) for _ in range(4)]
        self.assertEqual([f.kind for f in frames], [CHUNK, CHUNK, CHUNK, RESULT])
        self.assertEqual((frames[0].format, frames[0].body), (BYTES, b""))
        self.assertEqual(frames[0].head(), {"status": 200, "headers": [["content-type", "text/plain"]]})
        self.assertEqual([(f.format, f.value(), f.meta) for f in frames[1:3]], [(TEXT, "0\n", b""), (TEXT, "1\n", b"")])
        self.assertEqual(frames[3].format, NONE)

    def test_stream_without_items_still_has_its_head(self):
        id = self.worker.start("answer", ["nothing"])
        self.assertEqual(self.worker.wait(id).head()["status"], 200)
        self.assertEqual(self.worker.wait(id).kind, RESULT)

    def test_asynchronous_stream_begins_with_its_head(self):
        id = self.worker.start("later", ["stream"])
        frames = [self.worker.wait(id) for _ in range(3)]
        self.assertEqual(frames[0].head()["status"], 202)
        self.assertEqual(frames[1].body, b"one")
        self.assertEqual(frames[2].kind, RESULT)


if __name__ == "__main__":
    unittest.main()

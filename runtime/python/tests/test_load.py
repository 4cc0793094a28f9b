"""Loading an app: its functions and what is said of them, its hooks, and what goes wrong."""

import json
import unittest

from harness import ERROR, JSON, LOAD, LOAD_FAILED, WorkerTestCase, frame

SIGNATURES = '''
from __future__ import annotations
import dataclasses, functools, typing
from typing import Optional, List, TypedDict
import fnmesh
from os.path import join

@dataclasses.dataclass
class Item:
    price: float

class Options(TypedDict):
    name: str

def plain(a, b=2, *rest, c, d="x", **names):
    """First line.

        Indented.
    Last.
    """

def hinted(i: int, f: float, b: bool, s: str, y: bytes, l: list, t: List[int], d: dict, o: Options, x: Item,
           m: Optional[int], n: int | None, r: fnmesh.Request, u: Unknown = None) -> list[str]: ...

def defaults(i=1, f=1.5, b=True, s="", n=None): ...
def positional(a, /, b): ...
async def coroutine(): ...
def generator(): yield 1
async def both(): yield 1

def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **names):
        return function(*args, **names)
    return wrapper

@logged
def wrapped(a: int, b: str = "z"):
    return [a, b]

@functools.lru_cache
def cached(n: int): return n

def _private(): ...
class Shown:
    def __call__(self): ...
instance = Shown()
partial = functools.partial(plain, 1)
def __metacall_initialize__(): ...
'''


class Signatures(WorkerTestCase):
    APP = {"shapes.py": SIGNATURES}

    def entry(self, name):
        return self.worker.description["functions"][self.worker.functions[name]]

    def parameters(self, name, *fields):
        return [tuple(p.get(field) for field in fields) for p in self.entry(name)["parameters"]]

    def test_lists_functions_defined_in_the_module_in_order(self):
        names = ["plain", "hinted", "defaults", "positional", "coroutine", "generator", "both", "logged", "wrapped", "cached"]
        self.assertEqual(list(self.worker.functions), names)
        self.assertEqual(self.entry("plain")["module"], "shapes")
        self.assertEqual(self.entry("plain")["file"], "shapes.py")

    def test_names_kinds_and_defaults(self):
        expected = [
            ("a", "positional", None),
            ("b", "positional", "2"),
            ("rest", "var_positional", None),
            ("c", "keyword", None),
            ("d", "keyword", "'x'"),
            ("names", "var_keyword", None),
        ]
        self.assertEqual(self.parameters("plain", "name", "kind", "default"), expected)
        self.assertEqual(
            self.parameters("positional", "name", "kind"), [("a", "positional_only"), ("b", "positional")]
        )

    def test_hints_and_types_through_deferred_annotations(self):
        types = [type for (type,) in self.parameters("hinted", "type")]
        expected = "integer number boolean string bytes array array object object object integer integer request any"
        self.assertEqual(types, expected.split())
        hints = [hint for (hint,) in self.parameters("hinted", "hint")]
        self.assertEqual(hints[6:8] + hints[10:13], ["List[int]", "dict", "Optional[int]", "int | None", "fnmesh.Request"])
        self.assertEqual(self.entry("hinted")["returns"], "list[str]")
        self.assertTrue(self.entry("hinted")["http"])

    def test_types_of_defaults_without_hint(self):
        self.assertEqual(
            self.parameters("defaults", "type"), [("integer",), ("number",), ("boolean",), ("string",), ("any",)]
        )

    def test_docstring_without_its_indentation(self):
        self.assertEqual(self.entry("plain")["doc"], "First line.\n\n    Indented.\nLast.")
        self.assertNotIn("doc", self.entry("defaults"))

    def test_async_and_generator(self):
        kinds = {name: (self.entry(name)["async"], self.entry(name)["generator"]) for name in self.worker.functions}
        self.assertEqual(kinds["coroutine"], (True, False))
        self.assertEqual(kinds["generator"], (False, True))
        self.assertEqual(kinds["both"], (True, True))
        self.assertEqual(kinds["plain"], (False, False))

    def test_decorated_function_shows_what_it_wraps(self):
        expected = [("a", "integer", None), ("b", "string", "'z'")]
        self.assertEqual(self.parameters("wrapped", "name", "type", "default"), expected)
        self.assertEqual(self.worker.value("wrapped", {"a": 1}), [1, "z"])
        self.assertEqual(self.parameters("cached", "name", "hint"), [("n", "int")])
        self.assertEqual(self.worker.value("cached", [3]), 3)


class Hints(WorkerTestCase):
    APP = {
        "hints.py": """
import typing, collections.abc, enum, decimal, fnmesh
class Color(enum.Enum): RED = "red"
class Own: ...
UserId = typing.NewType("UserId", int)
def f(a: typing.Optional[int], b: typing.Dict[str, int], c: typing.Tuple[int, ...], d: typing.Union[int, float],
      e: typing.Literal["x", "y"], g: UserId, h: collections.abc.Mapping, i: typing.Any, j: Color, k: Own,
      l: "int", m: "Nowhere", n: "Nowhere[int]", o: None, p: decimal.Decimal, q: typing.Union[int, str],
      r: "typing.Optional[Missing]", s: "dict[str, Missing]", t: fnmesh.Request = None) -> None: ...
"""
    }

    def test_types_of_evaluated_hints(self):
        parameters = {p["name"]: p for p in self.worker.description["functions"][0]["parameters"]}
        types = " ".join(parameter["type"] for parameter in parameters.values())
        expected = "integer object array number string integer object any any any integer any any any any any any object"
        self.assertEqual(types, expected + " request")
        self.assertEqual(parameters["b"]["hint"], "Dict[str, int]")
        self.assertEqual(parameters["j"]["hint"], "Color")
        self.assertEqual(parameters["t"]["hint"], "fnmesh.Request")
        self.assertEqual(self.worker.description["functions"][0]["returns"], "None")


class Modules(WorkerTestCase):
    def test_all_names_the_functions(self):
        worker = self.start_worker("__all__ = ['_b', 'N', 'join']\nfrom os.path import join\nN = 1\ndef a(): ...\ndef _b(): ...")
        self.assertEqual(list(worker.ready().functions), ["_b", "join"])

    def test_all_naming_something_missing_fails_the_load(self):
        worker = self.start_worker("__all__ = ['gone']")
        failure = worker.channels[0].next(0).value()
        self.assertIn("__all__ names 'gone'", failure["message"])

    def test_packages_and_helpers_beside_the_modules(self):
        files = {
            "main.py": "import helper\nfrom pack import deep\ndef f(): return [helper.N, deep.N]",
            "helper.py": "N = 1",
            "pack/__init__.py": "",
            "pack/deep.py": "N = 2\ndef g(): return __name__",
        }
        worker = self.start_worker(files, modules=["main.py", "pack/deep.py"]).ready()
        self.assertEqual(worker.value("f"), [1, 2])
        self.assertEqual(worker.value("g"), "pack.deep")

    def test_module_named_like_one_of_the_standard_library(self):
        worker = self.start_worker({"os.py": "def f(): return 'own'", "io.py": "def g(): return 1"}).ready()
        self.assertEqual(worker.value("f"), "own")
        self.assertEqual(worker.value("g"), 1)

    def test_no_bytecode_is_left_in_the_app(self):
        import os

        worker = self.start_worker({"main.py": "import helper\ndef f(): ...", "helper.py": ""}).ready()
        self.assertNotIn("__pycache__", os.listdir(worker.directory))

    def test_module_without_functions_is_reported(self):
        worker = self.start_worker({"empty.py": "N = 1"}).ready()
        self.assertEqual(worker.description["functions"], [])
        self.assertEqual(worker.lines(0, 30), ["empty.py has no public function"])

    def test_http_by_settings_takes_the_first_parameter(self):
        worker = self.start_worker("def page(r, n=1): return r.method", settings={"page": {"http": True}}).ready()
        self.assertEqual(worker.description["functions"][0]["parameters"][0]["type"], "request")
        head = {"method": "PUT", "url": "/", "path": "", "query": "", "headers": []}
        self.assertEqual(worker.value("page", extra={"request": head}), "PUT")

    def test_http_without_a_parameter_fails_the_load(self):
        worker = self.start_worker("def page(): ...", settings={"page": {"http": True}})
        self.assertIn("has no parameter for it", worker.channels[0].next(0).value()["message"])


class Hooks(WorkerTestCase):
    HOOKED = """
import asyncio
events = []
def __metacall_initialize__(): print("initialize %(name)s")
async def __metacall_finalize__():
    await asyncio.sleep(0)
    print("finalize %(name)s")
def %(name)s(): ...
"""

    def test_run_in_order_and_in_reverse(self):
        worker = self.start_worker({f"{name}.py": self.HOOKED % {"name": name} for name in ("a", "b")}).ready()
        self.assertEqual(worker.lines(), ["initialize a", "initialize b"])
        self.assertEqual(worker.stop(), 0)
        self.assertEqual(worker.lines()[2:], ["finalize b", "finalize a"])

    def test_failing_initialize_fails_the_load(self):
        worker = self.start_worker("def __metacall_initialize__(): raise OSError('no database')\ndef f(): ...")
        answer = worker.channels[0].next(0)
        self.assertEqual((answer.kind, answer.aux), (ERROR, LOAD_FAILED))
        self.assertEqual(answer.value()["type"], "OSError")
        self.assertEqual(worker.exit_status(), 1)

    def test_failing_finalize_is_logged_and_does_not_stop_the_others(self):
        bad = "def __metacall_finalize__(): raise OSError('stuck')\ndef f(): ..."
        worker = self.start_worker({"a.py": self.HOOKED % {"name": "a"}, "b.py": bad}).ready()
        self.assertEqual(worker.stop(), 0)
        self.assertIn("OSError: stuck", worker.lines(0, 1))
        self.assertEqual(worker.lines(0, 0)[-1], "finalize a")


class Failures(WorkerTestCase):
    def failure(self, files):
        worker = self.start_worker(files)
        answer = worker.channels[0].next(0)
        self.assertEqual((answer.kind, answer.id, answer.aux), (ERROR, 0, LOAD_FAILED))
        self.assertEqual(worker.exit_status(), 1)
        return answer.value()

    def test_import_error_shows_the_users_frames_only(self):
        failure = self.failure({"main.py": "import helper\ndef f(): ...", "helper.py": "x = 1\nimport not_there_at_all"})
        self.assertEqual(failure["type"], "ModuleNotFoundError")
        self.assertEqual(failure["message"], "No module named 'not_there_at_all'")
        self.assertIn('main.py", line 1', failure["stack"])
        self.assertIn('helper.py", line 2', failure["stack"])
        self.assertEqual(failure["stack"].count("  File "), 2, failure["stack"])

    def test_syntax_error_shows_file_and_line(self):
        failure = self.failure("def f(:\n    pass")
        self.assertEqual(failure["type"], "SyntaxError")
        self.assertIn("app.py, line 1", failure["message"])
        self.assertIn('app.py", line 1', failure["stack"])

    def test_system_exit_at_import(self):
        failure = self.failure("import sys\nsys.exit('bye')")
        self.assertEqual((failure["type"], failure["message"]), ("SystemExit", "bye"))

    def test_prints_before_the_failure_arrive(self):
        worker = self.start_worker("print('one', end='')\n1/0")
        self.assertEqual(worker.channels[0].next(0).value()["type"], "ZeroDivisionError")
        self.assertEqual(worker.lines(0, 0), ["one"])

    def test_other_protocol_version_is_refused(self):
        worker = self.start_worker("def f(): ...", protocol=2)
        self.assertEqual(worker.exit_status(), 70)
        self.assertIn("version 2", worker.output("stderr"))

    def test_unreadable_frame_ends_the_worker(self):
        worker = self.start_worker("def f(): ...").ready()
        worker.channels[1].socket.sendall(b"\xff" * 16)
        self.assertEqual(worker.exit_status(), 70)

    def test_load_twice_ends_the_worker(self):
        worker = self.start_worker("def f(): ...").ready()
        worker.channels[0].send(frame(LOAD, body=json.dumps({}).encode(), format=JSON))
        self.assertEqual(worker.exit_status(), 70)


if __name__ == "__main__":
    unittest.main()

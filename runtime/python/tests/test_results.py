"""Results: Python objects as JSON, and what cannot be sent."""

import json
import sys
import unittest

from harness import BYTES, JSON, RAISED, WorkerTestCase

RESULTS = r'''
import collections, dataclasses, datetime, decimal, enum, fractions, pathlib, types, typing, uuid

def run(source):
    return eval(source, globals())

@dataclasses.dataclass
class Item:
    name: str
    price: float = 1.5
    shared: typing.ClassVar[int] = 7

@dataclasses.dataclass
class Order:
    items: list
    at: datetime.date

class Color(enum.Enum):
    RED = "red"

class Level(enum.IntEnum):
    LOW = 1

class Text(str): ...
class Int(int):
    def __str__(self): return "no"
class Float(float): ...
class List(list): ...
class Dict(dict): ...
class Point(typing.NamedTuple):
    x: int
    y: int

class Foo: ...
class Model:
    def model_dump(self, mode): return {"mode": mode}
class Breaks:
    def model_dump(self, mode): raise RuntimeError("half done")
class Self:
    def model_dump(self, mode): return self

def cycle():
    value = {"a": []}
    value["a"].append(value)
    return value

def deep(n):
    value = 1
    for _ in range(n):
        value = [value]
    return value

class Mutating:
    def __init__(self, target): self.target = target
    def model_dump(self, mode):
        self.target.clear()
        return 1

def mutates_list():
    value = []
    value.extend([1, Mutating(value), 3, 4])
    return value

def mutates_dict():
    value = {}
    value.update(a=1, b=Mutating(value), c=3)
    return value
'''


class Results(WorkerTestCase):
    APP = {"app.py": RESULTS}
    LOAD = {"max_reply_bytes": 1 << 20}

    def text(self, source):
        answer = self.worker.call("run", [source])
        self.assertEqual((answer.aux, answer.format), (0, JSON), answer)
        return answer.body.decode()

    def refused(self, source, message, kind="ResultError"):
        code, failure = self.worker.error("run", [source])
        self.assertEqual((code, failure["type"], failure["message"]), (RAISED, kind, message))

    def test_basic_types(self):
        cases = {
            "None": "null",
            "[True, False, 0, -1]": "[true,false,0,-1]",
            "'a'": '"a"',
            "(1, (2,))": "[1,[2]]",
            "{'a': {'b': []}, 'c': {}}": '{"a":{"b":[]},"c":{}}',
            "[]": "[]",
            "''": '""',
        }
        for source, expected in cases.items():
            self.assertEqual(self.text(source), expected)

    def test_integers_of_any_size(self):
        for number in (2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**100, 10**4000):
            self.assertEqual(self.text(repr(number)), str(number))

    def test_integer_with_too_many_digits(self):
        # Interpreters before that setting write integers of any length.
        if hasattr(sys, "get_int_max_str_digits"):
            self.refused("[10**5000]", "$[0]: cannot send an int with more digits than sys.get_int_max_str_digits()")
        else:
            self.assertEqual(self.text("[10**5000]"), str([10**5000]))

    def test_floats_keep_their_value_and_their_type(self):
        for number in (1.0, -0.0, 0.1, 1e16, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.125, 1e22):
            text = self.text(repr(number))
            value = json.loads(text)
            self.assertEqual((repr(value), type(value)), (repr(number), float), text)

    def test_strings_are_escaped(self):
        text = "".join(map(chr, range(0x80))) + "é€\U0001d11e\u2028"
        self.assertEqual(json.loads(self.text(repr(text))), text)
        self.assertEqual(self.text(r"'\x00\x1f\"\\/\n'"), r'"\u0000\u001f\"\\/\n"')

    def test_keys_that_are_no_strings(self):
        self.assertEqual(
            self.text("{1: 1, 1.5: 2, None: 4, 10**20: 5, Text('t'): 6, Level.LOW: 7}"),
            '{"1":7,"1.5":2,"null":4,"100000000000000000000":5,"t":6}',
        )
        self.assertEqual(self.text("{True: 1, False: 2}"), '{"true":1,"false":2}')
        self.refused("{'a': {(1, 2): 3}}", "$.a: cannot send a key of type tuple")

    def test_types_of_the_standard_library(self):
        cases = {
            "Item('x')": {"name": "x", "price": 1.5},
            "Order([Item('y', 2.0)], datetime.date(2024, 2, 29))": {
                "items": [{"name": "y", "price": 2.0}],
                "at": "2024-02-29",
            },
            "datetime.datetime(2024, 1, 2, 3, 4, 5, 6, datetime.timezone.utc)": "2024-01-02T03:04:05.000006+00:00",
            "datetime.time(1, 2)": "01:02:00",
            "datetime.timedelta(minutes=1.5)": 90.0,
            "uuid.UUID(int=1)": "00000000-0000-0000-0000-000000000001",
            "decimal.Decimal('1.10')": "1.10",
            "[Color.RED, Level.LOW]": ["red", 1],
            "sorted({1, 2})": [1, 2],
            "{1}": [1],
            "frozenset([2])": [2],
            "pathlib.PurePosixPath('/a/b')": "/a/b",
            "collections.OrderedDict(b=1, a=2)": {"b": 1, "a": 2},
            "collections.deque([1, 2])": [1, 2],
            "types.MappingProxyType({'a': 1})": {"a": 1},
            "range(3)": [0, 1, 2],
            "{'a': 1}.keys()": ["a"],
            "Point(1, 2)": [1, 2],
            "[Text('t'), Int(5), Float(2.5), List([1]), Dict(a=1)]": ["t", 5, 2.5, [1], {"a": 1}],
            "Model()": {"mode": "json"},
        }
        for source, expected in cases.items():
            self.assertEqual(json.loads(self.text(source)), expected, source)

    def test_order_of_an_ordered_dict_that_was_changed(self):
        source = "(lambda d: (d.move_to_end('a'), d)[1])(collections.OrderedDict(a=1, b=2))"
        self.assertEqual(self.text(source), '{"b":2,"a":1}')

    def test_what_cannot_be_sent_is_named_with_its_path(self):
        self.refused("{'items': [1, 2, 3, {'price': Foo()}]}", "$.items[3].price: cannot send value of type Foo")
        self.refused("Foo()", "$: cannot send value of type Foo")
        self.refused("Foo", "$: cannot send value of type type")
        self.refused("{'a b': [b'x']}", '$["a b"][0]: cannot send value of type bytes')
        self.refused("[(i for i in [])]", "$[0]: cannot send value of type generator")
        self.refused("[float('nan')]", "$[0]: cannot send NaN, which JSON does not have")
        self.refused("{'x': -float('inf')}", "$.x: cannot send an infinite number, which JSON does not have")
        self.refused(r"['\ud800']", "$[0]: cannot send a string with a lone surrogate")
        self.refused("1j", "$: cannot send value of type complex")
        self.refused("Order([Item('x', Foo())], None)", "$.items[0].price: cannot send value of type Foo")

    def test_failing_conversion_is_the_functions_failure(self):
        code, failure = self.worker.error("run", ["[Breaks()]"])
        self.assertEqual((code, failure["type"], failure["message"]), (RAISED, "RuntimeError", "half done"))

    def test_depth_and_cycles(self):
        self.text("deep(512)")
        for source in ("deep(513)", "deep(100000)", "cycle()", "Self()"):
            code, failure = self.worker.error("run", [source])
            self.assertEqual((code, failure["type"]), (RAISED, "ResultError"))
            self.assertIn("cannot send more than 512 levels", failure["message"])
            self.assertLess(len(failure["message"]), 300)

    def test_containers_that_change_while_they_are_sent(self):
        self.assertEqual(self.text("mutates_list()"), "[1,1]")
        self.assertIn('"a":1,"b":1', self.text("mutates_dict()"))

    def test_bytes(self):
        for source in ("b'\\x00\\xff'", "bytearray(b'\\x00\\xff')", "memoryview(b'\\x00\\xff')"):
            answer = self.worker.call("run", [source])
            self.assertEqual((answer.format, answer.body), (BYTES, b"\x00\xff"))

    def test_reply_limit(self):
        message = "the result is larger than the limit of 1048576 bytes (max_reply_bytes); stream it in parts"
        self.assertEqual(len(self.text("'a' * (2**20 - 2)")), 2**20)
        self.refused("'a' * (2**20 - 1)", message, "ResultTooLarge")
        self.refused("['abc'] * 10**6", message, "ResultTooLarge")
        self.refused("{i: i for i in range(10**5)}", message, "ResultTooLarge")
        self.refused("b'a' * (2**20 + 1)", message, "ResultTooLarge")
        self.assertEqual(len(self.worker.call("run", ["b'a' * 2**20"]).body), 2**20)


class Raised(WorkerTestCase):
    APP = {
        "app.py": r"""
import functools
class Custom(Exception): ...
class Unprintable(Exception):
    def __str__(self): raise ValueError
def inner(x):
    raise Custom("bad " + x)
def outer(x):
    return inner(x)
def caused():
    try:
        1/0
    except ZeroDivisionError as error:
        raise KeyError("k") from error
def unprintable(): raise Unprintable
def long(): raise ValueError("x" * 1000000)
def recursion(): return recursion()
def surrogate(): raise ValueError("\ud800")
def async_wrapper(f): return f
async def asynchronous():
    raise Custom("later")
def ok(): return 1
"""
    }

    def test_type_message_and_stack_of_the_users_code(self):
        code, failure = self.worker.error("outer", ["x"])
        self.assertEqual((code, failure["type"], failure["message"]), (RAISED, "Custom", "bad x"))
        self.assertTrue(failure["stack"].startswith("Traceback (most recent call last):\n"))
        self.assertTrue(failure["stack"].endswith("Custom: bad x"))
        self.assertEqual(failure["stack"].count("  File "), 2)
        self.assertIn("in outer", failure["stack"])
        self.assertIn('app.py", line 7, in inner', failure["stack"])

    def test_causes_are_shown(self):
        _, failure = self.worker.error("caused")
        self.assertIn("ZeroDivisionError", failure["stack"])
        self.assertIn("direct cause", failure["stack"])
        self.assertEqual(failure["message"], "'k'")

    def test_async_stack_has_no_frames_of_the_worker(self):
        code, failure = self.worker.error("asynchronous")
        self.assertEqual((code, failure["type"]), (RAISED, "Custom"))
        self.assertEqual(failure["stack"].count("  File "), 1, failure["stack"])

    def test_awkward_exceptions(self):
        self.assertEqual(self.worker.error("unprintable")[1]["type"], "Unprintable")
        self.assertLess(len(self.worker.error("long")[1]["message"]), 20_000)
        self.assertEqual(self.worker.error("recursion")[1]["type"], "RecursionError")
        self.assertEqual(self.worker.error("surrogate")[1]["type"], "ValueError")
        self.assertEqual(self.worker.value("ok"), 1)


class NumPy(WorkerTestCase):
    """With a stand-in, as the worker only looks at what is imported."""

    APP = {
        "numpy.py": """
class ndarray:
    def __init__(self, values): self.values = values
    def tolist(self): return self.values
class generic(ndarray): ...
class float64(generic, float):
    def __new__(cls, value): return float.__new__(cls, value)
""",
        "app.py": """
import numpy
def array(): return numpy.ndarray([[1, 2], [3, 4]])
def scalar(): return {"n": numpy.generic(7), "f": numpy.float64(2.5)}
def nan(): return numpy.ndarray([1.0, float("nan")])
""",
    }
    LOAD = {"modules": ["app.py"]}

    def test_arrays_and_scalars(self):
        self.assertEqual(self.worker.value("array"), [[1, 2], [3, 4]])
        self.assertEqual(self.worker.value("scalar"), {"n": 7, "f": 2.5})
        self.assertEqual(self.worker.error("nan")[1]["message"], "$[1]: cannot send NaN, which JSON does not have")


class Integers(WorkerTestCase):
    APP = {"app.py": "def power(base, n, add): return base**n + add"}

    def test_integers_of_any_length(self):
        for n in (0, 1, 7, 8, 9, 18, 19, 25):
            for add in (-1, 0, 1):
                for base in (10, -10):
                    self.assertEqual(self.worker.value("power", [base, n, add]), base**n + add)


if __name__ == "__main__":
    unittest.main()

"""Arguments: JSON into Python objects, and bodies bound to parameters."""

import json
import unittest

from harness import BYTES, INVALID_INPUT, NONE, RAISED, TEXT, UNKNOWN_FUNCTION, WorkerTestCase

FUNCTIONS = """
def merge(a: str, b: str = 'x'): return a + b
def both(a, b): return [a, b]
def none(): return "none"
def one(value): return value
def kind(value): return type(value).__name__ + " " + repr(value)
def many(*values): return list(values)
def names(a=0, **rest): return [a, rest]
def anything(*values, **names): return [list(values), names]
def keyword(a, *, b, c=3): return [a, b, c]
def middle(a, b=2, c=3): return [a, b, c]
def positional(a, b=2, /): return [a, b]
def long(value): return str(len(str(value)))
def broken(a): return both(a)
def weird(ünï): return ünï
"""


class Binding(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def refused(self, message, function, body=b"", **options):
        code, failure = self.worker.error(function, body, **options)
        self.assertEqual(code, INVALID_INPUT)
        self.assertEqual(failure["message"], message)

    def test_positions(self):
        self.assertEqual(self.worker.value("merge", ["A", "B"]), "AB")
        self.assertEqual(self.worker.value("merge", ["A"]), "Ax")
        self.assertEqual(self.worker.value("many", [1, [2], {"c": 3}]), [1, [2], {"c": 3}])

    def test_names_in_any_order_with_defaults(self):
        self.assertEqual(self.worker.value("merge", b'{"b":"B","a":"A"}'), "AB")
        self.assertEqual(self.worker.value("merge", {"a": "A"}), "Ax")
        self.assertEqual(self.worker.value("middle", {"a": 1, "c": 9}), [1, 2, 9])
        self.assertEqual(self.worker.value("positional", {"b": 3, "a": 1}), [1, 3])
        self.assertEqual(self.worker.value("weird", {"ünï": 1}), 1)
        self.assertEqual(self.worker.value("weird", b'{"\\u00fcn\\u00ef": 1}'), 1)

    def test_last_of_duplicate_names_counts(self):
        self.assertEqual(self.worker.value("merge", b'{"a":"1","b":"2","a":"3"}'), "32")
        self.assertEqual(self.worker.value("one", b'[{"k":1,"k":2}]'), {"k": 2})

    def test_keyword_only(self):
        self.assertEqual(self.worker.value("keyword", {"a": 1, "b": 2}), [1, 2, 3])
        self.assertEqual(self.worker.value("keyword", {"c": 4, "b": 2, "a": 1}), [1, 2, 4])
        self.refused("keyword(a, *, b, c=3): missing argument 'b'", "keyword", {"a": 1})
        self.refused("keyword(a, *, b, c=3): missing argument 'b'", "keyword", [1])
        self.refused("keyword(a, *, b, c=3): takes 1 argument, got 2", "keyword", [1, 2])

    def test_any_names(self):
        self.assertEqual(self.worker.value("names", {"a": 1, "z": 2, "y": 3}), [1, {"z": 2, "y": 3}])
        self.assertEqual(self.worker.value("anything", {"z": 2}), [[], {"z": 2}])

    def test_other_objects_are_their_values_in_order(self):
        self.assertEqual(self.worker.value("both", b'{"x":1,"y":2}'), [1, 2])
        self.assertEqual(self.worker.value("both", b'{"a":1,"y":2}'), [1, 2])
        self.assertEqual(self.worker.value("many", b'{"z":1,"a":2}'), [1, 2])
        self.refused("both(a, b): unexpected argument 'c'", "both", {"a": 1, "b": 2, "c": 3})
        self.refused("both(a, b): unexpected arguments 'x', 'y'", "both", {"x": 1, "y": 2, "a": 3})
        self.refused("both(a, b): unexpected argument 'x'", "both", {"x": 1})

    def test_single_values_and_formats(self):
        self.assertEqual(self.worker.value("one", b"3"), 3)
        self.assertEqual(self.worker.value("one", b'"s"'), "s")
        self.assertEqual(self.worker.value("one", b"null"), None)
        self.assertEqual(self.worker.value("kind", b"\x00\xff", format=BYTES), "bytes b'\\x00\\xff'")
        self.assertEqual(self.worker.value("kind", "é".encode(), format=TEXT), "str 'é'")
        self.assertEqual(self.worker.value("none", format=NONE), "none")
        self.refused("the text is not valid UTF-8", "one", b"\xff", format=TEXT)

    def test_missing_and_surplus(self):
        self.refused("merge(a: str, b: str = 'x'): missing argument 'a'", "merge")
        self.refused("merge(a: str, b: str = 'x'): missing argument 'a'", "merge", {"b": "B"})
        self.refused("merge(a: str, b: str = 'x'): takes at most 2 arguments, got 3", "merge", ["A", "B", "C"])
        self.refused("both(a, b): takes 2 arguments, got 3", "both", [1, 2, 3])
        self.refused("both(a, b): missing arguments 'a', 'b'", "both", [])
        self.refused("none(): takes 0 arguments, got 1", "none", b"1")
        self.assertEqual(self.worker.value("none", b"[]"), "none")
        self.assertEqual(self.worker.value("none", b"{}"), "none")

    def test_type_error_inside_the_function_is_its_own(self):
        code, failure = self.worker.error("broken", [1])
        self.assertEqual((code, failure["type"]), (RAISED, "TypeError"))
        self.assertIn("both()", failure["message"])

    def test_unknown_function(self):
        code, _ = self.worker.error(None, index=999)
        self.assertEqual(code, UNKNOWN_FUNCTION)

    def test_large_arguments(self):
        body = json.dumps(["é" * 3_000_000]).encode()
        self.assertEqual(self.worker.value("long", body), "3000000")
        self.refused("none(): takes 0 arguments, got 1", "none", body)


class Numbers(WorkerTestCase):
    APP = {"app.py": FUNCTIONS}

    def test_integers_stay_exact(self):
        for number in (0, -1, 2**63 - 1, -(2**63), 2**63, 2**64, -(10**30), 10**4299):
            self.assertEqual(self.worker.value("one", json.dumps([number]).encode()), number)
        self.assertEqual(self.worker.value("kind", b"-0"), "int 0")

    def test_floats_stay_floats(self):
        for text in ("1.0", "-0.0", "1e5", "0.1", "123456789012345678901.5", "5e-324", "1.7976931348623157e308", "1E+2"):
            self.assertEqual(self.worker.value("kind", text.encode()), f"float {float(text)!r}")

    def test_what_no_number_can_hold_is_refused(self):
        for text in ("1e999", "-1E400", "1" * 4301, "-" + "1" * 5000, "123456789012345678901e400"):
            code, failure = self.worker.error("one", f"[{text}]".encode())
            self.assertEqual(code, INVALID_INPUT, text)
            self.assertIn("a number", failure["message"])
        code, failure = self.worker.error("one", b"NaN")
        self.assertIn("NaN", failure["message"])

    def test_digits_limit_of_the_interpreter(self):
        worker = self.start_worker(FUNCTIONS, environment={"PYTHONINTMAXSTRDIGITS": "640"}).ready()
        import sys

        if not hasattr(sys, "get_int_max_str_digits"):
            self.assertEqual(worker.value("long", [10**700]), "701")
            return
        code, failure = worker.error("one", [10**700])
        self.assertEqual(code, INVALID_INPUT)
        self.assertIn("sys.set_int_max_str_digits", failure["message"])


class Json(WorkerTestCase):
    """Cases as in JSONTestSuite, whose y_ must be accepted and n_ refused, and i_ may be either."""

    APP = {"app.py": FUNCTIONS}

    ACCEPTED = [
        b"[]", b"{}", b" [ ] ", b"[[]]", b'[""]', b"[1]", b"[ 1]", b"[null,1,false,true]", b"[123e65]", b"[0e+1]",
        b"[20e1]", b"[-123]", b"[-0]", b"[-0.0]", b"[0.0000000000000001]", b"[1.0E-2]", b"[123.456e78]",
        b'{"a":"b","a":"b"}', b'{"":0}', b'{"a\\u0000b": 42}', b'["\\u0060\\u012a\\u12AB"]',
        b'["\\uD801\\udc37"]', b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]', b'["\\uFFFF"]', b'["\\u0000"]', b'["a/*b*/c"]',
        '["\u20ac\U0001d11e\x7f\u2028"]'.encode(), b'"asd"', b"42", b"-0.1", b"null", b"true", b'""', b'["a"]\n',
    ]  # fmt: skip
    REFUSED = [
        b" ", b"[1 true]", b"[a\xe5]", b'["": 1]', b"[1,,2]", b'["x"]]', b'["",]', b'["x"', b"[x", b"[3[ 4]]",
        b"[1:2]", b"[,]", b"[-]", b"[   , \"\"]", b"[*]", b'["a",4,', b"[1,]", b"[", b"[fals]", b"[nul]", b"[tru]",
        b"123\x00", b"[++1234]", b"[+1]", b"[+Inf]", b"[-01]", b"[-1.0.]", b"[-2.]", b"[-NaN]", b"[.-1]", b"[.2e-3]",
        b"[0.1.2]", b"[0.3e+]", b"[0.e1]", b"[0E]", b"[1.0e]", b"[1 000.0]", b"[1eE2]", b"[2.e+3]", b"[9.e+]",
        b"[Inf]", b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[0x1]", b"[012]", b"[1+2]", b"[-123.123foo]", b"[1ea]",
        b'["x", truth]', b"{[: \"x\"}", b'{"x", null}', b'{"x"::"b"}', b"{1:1}", b'{"a":"a" 123}', b'{key: "v"}',
        b'{"a" b}', b'{:"b"}', b'{"a"', b'{"a":', b"{'a':0}", b'{"id":0,}', b'{"a":"b"}/**/', b'{"a":"b",,"c":"d"}',
        b'{"a":"b"}#', b'["\\uD800\\"]', b'["\\x00"]', b'["\\a"]', b'["\\u00A"]', b'["a\x00a"]', b'["new\nline"]',
        b'["\t"]', b'["\\', b'"\\', b"[\xff]", b'["\xff"]', b'{"\xff":1}', b"[\"\xed\xa0\x80\"]", b"<null>", b"[1]x",
        b"\xef\xbb\xbf", b"[\x0c]", b"[\xe2\x81\xa0]", b"{}}", b"*", b"'a'", b"[True]", b"1]", b'{"a":true} "x"',
        b"\xc3\xa5", b"[\"a\",\n4\n,1,", b"[1\n,1\n,1", b"{", b"{]", b"[{", b"}", b'{"a":"a', b"nan", b"-", b"--1",
    ]  # fmt: skip
    EITHER = [
        b'["\\uD800"]', b'["\\uDADA"]', b'["\\uD888\\u1234"]', b'["\\uDd1e\\uD834"]', b'["\\ud800abc"]', b"[1e9999]",
        b"[-1e+9999]", b"[0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999999]",
        b"\xef\xbb\xbf{}", b"\xff\xfe[\x00\"\x00\xe9\x00\"\x00]\x00", b"[\"\xe0\xff\"]", b"[123123e100000]",
        b"[" * 500 + b"]" * 500, b'["\xf4\xbf\xbf\xbf"]', b'["\xc0\xaf"]',
    ]  # fmt: skip

    def test_accepts_what_json_is(self):
        for text in self.ACCEPTED:
            positions, names = self.worker.value("anything", text)
            expected = json.loads(text)
            if isinstance(expected, dict):
                self.assertEqual((positions, names), ([], expected), text)
            else:
                self.assertEqual(positions, expected if isinstance(expected, list) else [expected], text)

    def test_refuses_what_json_is_not(self):
        for text in self.REFUSED:
            code, failure = self.worker.error("anything", text)
            self.assertEqual(code, INVALID_INPUT, text)
            self.assertRegex(failure["message"], r"^the arguments are not valid JSON: .+ at line \d+ column \d+$")

    def test_survives_what_json_leaves_open(self):
        for text in self.EITHER:
            answer = self.worker.call("anything", text)
            self.assertIn(answer.aux, (0, INVALID_INPUT), text)
        self.assertEqual(self.worker.value("none"), "none")

    def test_integers_of_any_length(self):
        for digits in (1, 2, 8, 9, 10, 17, 18, 19, 20, 30):
            for number in (10 ** (digits - 1), 10**digits - 1, -(10**digits) + 1):
                for text in (b"[%d]", b"[%d,1]", b"[ %d , 1 ]", b'{"value":%d}', b"%d", b"[[%d]]", b"[[%d , 0]]"):
                    text = text % number
                    expected = json.loads(text)
                    values = expected if isinstance(expected, list) else [expected]
                    if isinstance(expected, dict):
                        values = [expected["value"]]
                    self.assertEqual(self.worker.value("many", text), values, text)
        for text in (b"[00]", b"[01]", b"[-01]", b"[0 0]", b"[1,]", b"[1 2]", b"[1", b"[1,", b"[1-]", b"[1}", b"[1;2]"):
            code, failure = self.worker.error("many", text)
            self.assertEqual(code, INVALID_INPUT, text)
            self.assertIn("not valid JSON", failure["message"])

    def test_strings_of_any_length(self):
        for length in [*range(20), 63, 64, 65, 1000]:
            for end in ("", '"', "\\", "\n", "\x7f", "é", "日", "😀", "\x00"):
                text = "a" * length + end
                self.assertEqual(self.worker.value("one", [text]), text)
                self.assertEqual(self.worker.value("one", json.dumps([text], ensure_ascii=False).encode()), text)
                self.assertEqual(self.worker.value("one", [{text: text}]), {text: text})
        self.assertEqual(self.worker.value("one", b'["\\u00e9\\/\\ud83d\\ude00x"]'), "é/😀x")

    def test_says_where(self):
        _, failure = self.worker.error("anything", b'[1,\n  2,\n  x]')
        self.assertEqual(failure["message"], "the arguments are not valid JSON: expected a value at line 3 column 3")

    def test_depth(self):
        self.assertEqual(self.worker.value("none", b"[]"), "none")
        self.worker.value("anything", b"[" * 128 + b"]" * 128)
        self.worker.value("anything", b'{"a":' * 128 + b"1" + b"}" * 128)
        for text in (b"[" * 129 + b"]" * 129, b"[" * 100_000, b'[{"a":' * 50_000, b'{"a":' * 129 + b"1" + b"}" * 129):
            code, failure = self.worker.error("anything", text)
            self.assertEqual(code, INVALID_INPUT)
            self.assertIn("more than 128 levels", failure["message"])
        self.assertEqual(self.worker.value("none"), "none")


if __name__ == "__main__":
    unittest.main()

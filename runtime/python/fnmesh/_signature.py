"""What a function looks like from outside: parameters, hints, defaults, documentation."""

import sys
from types import FunctionType

_VAR_POSITIONAL, _VAR_NAMES = 0x04, 0x08
_GENERATOR, _COROUTINE, _ITERABLE_COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200
_MAX_DEFAULT = 200

_KINDS = ("positional_only", "positional", "var_positional", "keyword", "var_keyword")
_MISSING = object()


class Parameter:
    """One parameter: name, kind as in the worker protocol, default and hint where it has them."""

    def __init__(self, name, kind, default=_MISSING, hint=_MISSING):
        self.name, self.kind, self.default, self.hint = name, kind, default, hint

    def has_default(self):
        return self.default is not _MISSING


def describe(name, function, http, module_globals):
    """What ``ready`` says of a function, and what the core needs to call it."""
    inner = unwrap(function)
    parameters, returns = _read(function, inner)
    scope = getattr(inner, "__globals__", module_globals)
    described = [_describe_parameter(parameter, scope) for parameter in parameters]
    if http and not any(entry["type"] == "request" for entry in described):
        taker = next((e for e in described if e["kind"] in ("positional_only", "positional", "keyword")), None)
        if taker is None:
            raise TypeError(f"{name}() is to take the HTTP request, but has no parameter for it")
        taker["type"] = "request"
    flags = _flags(function) | _flags(inner)
    entry = {
        "name": name,
        "async": bool(flags & (_COROUTINE | _ITERABLE_COROUTINE | _ASYNC_GENERATOR)),
        "generator": bool(flags & (_GENERATOR | _ASYNC_GENERATOR)) and not flags & _ITERABLE_COROUTINE,
        "http": any(parameter["type"] == "request" for parameter in described),
        "parameters": described,
    }
    doc = _clean(getattr(function, "__doc__", None))
    if doc:
        entry["doc"] = doc
    if returns is not _MISSING:
        entry["returns"] = _hint_text(returns)
    return entry, _binding(name, function, parameters, entry)


def unwrap(function):
    """The function inside decorators that say what they wrap."""
    for _ in range(100):
        if "__signature__" in getattr(function, "__dict__", ()):
            break
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is None:
            break
        function = wrapped
    return function


def _binding(name, function, parameters, entry):
    positional = [p for p in parameters if p.kind in ("positional_only", "positional")]
    named = positional + [p for p in parameters if p.kind == "keyword"]
    requests = {e["name"] for e in entry["parameters"] if e["type"] == "request"}
    return {
        "callable": function,
        "signature": name + _signature_text(entry["parameters"]),
        "parameters": [
            {"name": p.name, "key": sys.intern(p.name), "default": (p.default,) if p.has_default() else None}
            for p in named
        ],
        "positional": len(positional),
        "any_position": any(p.kind == "var_positional" for p in parameters),
        "any_name": any(p.kind == "var_keyword" for p in parameters),
        "request": next((index for index, p in enumerate(named) if p.name in requests), None),
        "streams": entry["generator"] and not entry["async"],
    }


def _read(function, inner):
    """Parameters and return hint; from the code object, as importing ``inspect`` takes longer than all the rest."""
    if type(inner) is not FunctionType or "__signature__" in inner.__dict__:
        return _inspect(function)
    code, hints = inner.__code__, _hints(inner)
    count, names = code.co_argcount, code.co_varnames
    defaults = dict(zip(reversed(names[:count]), reversed(inner.__defaults__ or ())))
    by_name = names[count : count + code.co_kwonlyargcount]
    rest = iter(names[count + code.co_kwonlyargcount :])
    parameters = []
    for index, name in enumerate(names[:count]):
        kind = "positional_only" if index < code.co_posonlyargcount else "positional"
        parameters.append(Parameter(name, kind, defaults.get(name, _MISSING), hints.get(name, _MISSING)))
    if code.co_flags & _VAR_POSITIONAL:
        name = next(rest)
        parameters.append(Parameter(name, "var_positional", hint=hints.get(name, _MISSING)))
    for name in by_name:
        default = (inner.__kwdefaults__ or {}).get(name, _MISSING)
        parameters.append(Parameter(name, "keyword", default, hints.get(name, _MISSING)))
    if code.co_flags & _VAR_NAMES:
        name = next(rest)
        parameters.append(Parameter(name, "var_keyword", hint=hints.get(name, _MISSING)))
    return parameters, hints.get("return", _MISSING)


def _inspect(function):
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # A callable that does not say what it takes.
        return [Parameter("args", "var_positional"), Parameter("kwargs", "var_keyword")], _MISSING
    empty = inspect.Parameter.empty
    kinds = dict(zip(sorted(inspect._ParameterKind), _KINDS))
    known = lambda value: _MISSING if value is empty else value
    return [
        Parameter(p.name, kinds[p.kind], known(p.default), known(p.annotation)) for p in signature.parameters.values()
    ], known(signature.return_annotation)


def _hints(function):
    try:
        return function.__annotations__
    except Exception:
        # From 3.14 on hints are evaluated when they are looked at, and may name what is not there.
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.STRING)


def _flags(function):
    return getattr(getattr(function, "__code__", None), "co_flags", 0)


def _describe_parameter(parameter, scope):
    entry = {"name": parameter.name, "kind": parameter.kind, "type": "any"}
    if parameter.hint is not _MISSING:
        entry["hint"] = _hint_text(parameter.hint)
        entry["type"] = _hint_type(parameter.hint, scope)
    if parameter.has_default():
        entry["default"] = _default_text(parameter.default)
        if entry["type"] == "any":
            entry["type"] = _hint_type(type(parameter.default), scope)
    return entry


def _default_text(default):
    try:
        text = repr(default)
    except Exception:
        text = "..."
    return text if len(text) <= _MAX_DEFAULT else text[:_MAX_DEFAULT] + "..."


def _signature_text(parameters):
    """``(a: str, b: str = 'x')``"""
    texts, starred = [], False
    for index, parameter in enumerate(parameters):
        kind = parameter["kind"]
        if kind == "keyword" and not starred:
            texts.append("*")
        starred = starred or kind in ("keyword", "var_positional")
        text = {"var_positional": "*", "var_keyword": "**"}.get(kind, "") + parameter["name"]
        if "hint" in parameter:
            text += ": " + parameter["hint"]
        if "default" in parameter:
            text += (" = " if "hint" in parameter else "=") + parameter["default"]
        texts.append(text)
        if kind == "positional_only" and all(p["kind"] != kind for p in parameters[index + 1 :]):
            texts.append("/")
    return "(" + ", ".join(texts) + ")"


def _clean(doc):
    """A docstring without the indentation of its source."""
    if not isinstance(doc, str):
        return None
    first, *rest = doc.expandtabs().splitlines() or [""]
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return "\n".join([first.strip(), *(line[margin:].rstrip() for line in rest)]).strip()


def _hint_text(hint):
    """A hint as its source has it, as far as that can be told."""
    if isinstance(hint, str):
        return hint
    if hint is None or hint is type(None):
        return "None"
    if isinstance(hint, type) and not hasattr(hint, "__origin__"):
        module = hint.__module__
        return f"fnmesh.{hint.__qualname__}" if module.startswith("fnmesh.") else hint.__qualname__
    return repr(hint).replace("typing.", "").replace("NoneType", "None").replace("fnmesh._http.", "fnmesh.")


def _hint_type(hint, scope):
    """The kind of JSON value a hint asks for, as the worker protocol names it."""
    if isinstance(hint, str):
        try:
            hint = eval(hint, scope)
        except Exception:
            return _text_type(hint)
    if isinstance(hint, str):
        return "any"
    return _object_type(hint, scope)


_BY_CLASS = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    ((bytes, bytearray, memoryview), "bytes"),
    ((list, tuple, set, frozenset), "array"),
    (dict, "object"),
)
_BY_NAME = {
    "bool": "boolean", "int": "integer", "float": "number", "str": "string", "bytes": "bytes",
    "list": "array", "List": "array", "tuple": "array", "Tuple": "array", "set": "array", "Set": "array",
    "Sequence": "array", "MutableSequence": "array", "Iterable": "array", "Collection": "array",
    "dict": "object", "Dict": "object", "Mapping": "object", "MutableMapping": "object",
    "Request": "request",
}  # fmt: skip


def _object_type(hint, scope):
    origin = getattr(hint, "__origin__", None)
    if hasattr(hint, "__metadata__"):  # Annotated[int, ...]
        return _hint_type(origin, scope)
    if hasattr(hint, "__supertype__"):  # NewType
        return _hint_type(hint.__supertype__, scope)
    choices = getattr(hint, "__args__", ())
    if _is_union(hint, origin):
        return _common(_hint_type(choice, scope) for choice in choices if choice is not type(None))
    if getattr(origin, "_name", None) == "Literal" or origin is getattr(sys.modules.get("typing"), "Literal", _MISSING):
        return _common(_hint_type(type(choice), scope) for choice in choices)
    kind = origin if isinstance(origin, type) else hint
    if not isinstance(kind, type):
        return "any"
    if kind.__module__ == "fnmesh._http":
        return _BY_NAME.get(kind.__name__, "any")
    for classes, name in _BY_CLASS:
        if issubclass(kind, classes):
            return name
    if hasattr(kind, "__dataclass_fields__") or hasattr(kind, "model_fields"):
        return "object"
    return _BY_NAME.get(kind.__name__, "any") if kind.__module__ in ("collections.abc", "typing") else "any"


def _is_union(hint, origin):
    types, typing = sys.modules.get("types"), sys.modules.get("typing")
    return isinstance(hint, getattr(types, "UnionType", ())) or (typing is not None and origin is typing.Union)


def _common(types):
    """The one type of all; integer and number have number in common."""
    types = set(types)
    if types == {"integer", "number"}:
        return "number"
    return types.pop() if len(types) == 1 else "any"


def _text_type(text):
    """By its text alone, for a hint that names what is not there at run time."""
    text = text.strip()
    choices = [part.strip() for part in text.split("|")]
    if len(choices) == 1 and text.startswith(("Optional[", "typing.Optional[")):
        choices = [text.partition("[")[2].rstrip("]")]
    names = (choice.partition("[")[0].rpartition(".")[2] for choice in choices if choice != "None")
    return _common(_BY_NAME.get(name, "any") for name in names)

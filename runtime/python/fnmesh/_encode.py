"""Values beyond JSON's own types, as values of those."""

import sys
from collections.abc import Mapping, Set, Sequence
from enum import Enum


def convert(value):
    """A value of a simpler type for this one; NotImplemented if there is none."""
    kind = type(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, type):
        return NotImplemented
    if hasattr(kind, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        return {field.name: getattr(value, field.name) for field in fields(value)}
    for basic, plain in _SUBCLASSES:
        if isinstance(value, basic):
            return plain(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return NotImplemented
    for module, names, plain in _LIBRARY:
        # A value cannot be of a type whose module nobody imported.
        module = sys.modules.get(module)
        if module is not None and isinstance(value, tuple(getattr(module, name) for name in names)):
            return plain(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Set, Sequence)):
        return list(value)
    return NotImplemented


#: For a value of a subclass the same value of the class itself.
_SUBCLASSES = (
    (str, str.__str__),
    (int, int.__pos__),
    (float, float.__pos__),
    (dict, dict),
    (list, list),
    (tuple, list),
)

_LIBRARY = (
    ("datetime", ("date", "time"), lambda value: value.isoformat()),
    ("datetime", ("timedelta",), lambda value: value.total_seconds()),
    # As text, which keeps all digits.
    ("decimal", ("Decimal",), str),
    ("uuid", ("UUID",), str),
    ("pathlib", ("PurePath",), str),
    ("collections", ("deque",), list),
    ("numpy", ("ndarray", "generic"), lambda value: value.tolist()),
)

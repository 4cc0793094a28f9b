"""Exceptions as the user's own code shows them, without the worker's frames."""

import importlib
import os
import traceback

_MAX_MESSAGE = 16 * 1024
_MAX_STACK = 64 * 1024
#: How the file names of frames begin that are not the user's.
_OURS = ("<fnmesh", "<frozen importlib", os.path.dirname(importlib.__file__))


def describe(error):
    """The name of its type, its message, and its traceback."""
    return type(error).__name__, _message(error), _stack(error)


def _message(error):
    try:
        message = str(error)
    except Exception as other:
        message = f"str() of this exception raised {type(other).__name__}"
    return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "..."


def _stack(error):
    try:
        described = traceback.TracebackException(type(error), error, error.__traceback__)
        _strip(described, set())
        stack = "".join(described.format()).rstrip()
    except Exception as other:
        stack = f"the traceback of this exception raised {type(other).__name__}"
    return stack if len(stack) <= _MAX_STACK else "..." + stack[-_MAX_STACK:]


def _strip(described, seen):
    """Takes our frames out of a traceback and of those it came from."""
    if described is None or id(described) in seen:
        return
    seen.add(id(described))
    if described.stack is not None:
        described.stack[:] = [frame for frame in described.stack if not frame.filename.startswith(_OURS)]
    for other in (described.__cause__, described.__context__, *(getattr(described, "exceptions", None) or ())):
        _strip(other, seen)

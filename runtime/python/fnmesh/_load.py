"""Loads the app: imports its modules, finds its functions, runs its hooks."""

import sys

from fnmesh import _core, _logs
from fnmesh._signature import describe

_INITIALIZE, _FINALIZE = "__metacall_initialize__", "__metacall_finalize__"
_WARNING = 30

_modules = []
_is_async = False


def load(app):
    """What ``ready`` says of the app, and for each function what the core needs to call it."""
    _prepare(app["directory"])
    entries = app["modules"]
    _modules.extend(_import(app["directory"], entry["name"], entry["file"]) for entry in entries)
    described, bindings = [], []
    for module, entry in zip(_modules, entries):
        functions = list(_functions(module))
        if not functions:
            _core.record(_WARNING, f"{entry['file']} has no public function")
        for name, function in functions:
            http = entry.get("settings", {}).get(name, {}).get("http", False)
            description, binding = describe(name, function, http, module.__dict__)
            described.append({"module": entry["name"], "file": entry["file"], **description})
            bindings.append(binding)
    global _is_async
    _is_async = any(description["async"] for description in described)
    version = "%d.%d.%d" % sys.version_info[:3]
    return {"language": "python", "version": version, "functions": described}, bindings


def start():
    """Makes the process that has the app loaded an instance of it."""
    for module in _modules:
        _run_hook(module, _INITIALIZE)
    if _is_async:
        # Now rather than in the first call.
        import fnmesh._loop  # noqa: F401


def freeze():
    """Prepares the process for being forked: what the instances have in common is made, and left alone by them."""
    import gc

    if _is_async:
        # Its event loop is made in the instance.
        import asyncio  # noqa: F401
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            # Or each instance would write what is in there.
            stream.flush()
    gc.collect()
    gc.freeze()


def thaw(born):
    """Gives an instance that was forked what it must not share with the others."""
    import os

    inherited, temporary = os.environ.get("TMPDIR"), born.get("temporary")
    # An app that names a directory itself wants that one.
    if temporary is not None and inherited is not None and temporary.startswith(inherited + "/"):
        os.environ["TMPDIR"] = temporary
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None and tempfile.tempdir == inherited:
            tempfile.tempdir = temporary
    # `random` does this itself. Generators that the app made are its own business.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def exit_work():
    """What the app registered with ``weakref.finalize`` to be done at exit, such as the removal of a temporary directory."""
    weakref = sys.modules.get("weakref")
    registry = getattr(getattr(weakref, "finalize", None), "_registry", {})
    for info in list(registry.values()):
        if info.atexit:
            return getattr(info.func, "__qualname__", repr(info.func))
    return None


def finalize():
    """Runs the finalize hooks, the last module's first; one that fails does not stop the others."""
    for module in reversed(_modules):
        try:
            _run_hook(module, _FINALIZE)
        except BaseException:
            sys.excepthook(*sys.exc_info())


def _prepare(directory):
    import _signal

    _logs.install()
    # A Ctrl-C on the node's terminal reaches all its processes; the node decides what stops. A handler, as programs the
    # app starts would inherit that a signal is ignored.
    _signal.signal(_signal.SIGINT, lambda *_: None)
    # A waiting leader gets the GIL back from computing threads sooner. HELD in runners.rs is a little less.
    sys.setswitchinterval(0.001)
    # Source and bytecode are told apart by seconds, and an app under development changes faster than that.
    sys.dont_write_bytecode = True
    sys.argv[:] = [directory]
    if sys.path and sys.path[0] == "":
        sys.path[0] = directory
    else:
        sys.path.insert(0, directory)


def _import(directory, name, file):
    """The module, also if one of the same name is in the standard library and already imported."""
    path = f"{directory}/{file}"
    known = sys.modules.get(name)
    if known is None or getattr(known, "__file__", None) == path:
        __import__(name)
        return sys.modules[name]
    from importlib import util

    spec = util.spec_from_file_location(name, path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _functions(module):
    names = getattr(module, "__all__", None)
    if names is not None:
        for name in names:
            if not hasattr(module, name):
                raise AttributeError(f"{module.__file__}: __all__ names {name!r}, which is not there")
            if _is_function(getattr(module, name)) and not name.startswith("__metacall_"):
                yield name, getattr(module, name)
        return
    for name, value in list(module.__dict__.items()):
        if not name.startswith("_") and _is_function(value) and _is_defined_in(module, value):
            yield name, value


def _is_function(value):
    # Not a NewType or an alias of a generic class either, though they can be called.
    return callable(value) and not isinstance(value, type) and not hasattr(value, "__supertype__") and not hasattr(value, "__origin__")


def _is_defined_in(module, value):
    # An instance with __call__ has the module of its class, but no name.
    return getattr(value, "__module__", None) == module.__name__ and isinstance(getattr(value, "__name__", None), str)


def _run_hook(module, name):
    hook = getattr(module, name, None)
    if hook is None:
        return
    result = hook()
    if hasattr(type(result), "__await__"):
        from fnmesh import _loop

        async def wait():
            return await result

        _loop.run(wait())

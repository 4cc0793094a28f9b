"""Imports this package from the sources inside the worker core; run before anything else of it."""

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import PathFinder


class _Embedded:
    """Loads one module of the package."""

    def __init__(self, source):
        self.source = source

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # Tracebacks leave out frames whose file begins like this.
        exec(compile(self.source, f"<{module.__name__}>", "exec"), module.__dict__)


class _Dressed:
    """Loads ``logging``, and makes its records logs of the app."""

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        from fnmesh._logs import adopt

        adopt(module)


class _Finder:
    def __init__(self, core):
        self.core = core

    def find_spec(self, name, path=None, target=None):
        if name == "logging":
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _Dressed(spec.loader)
            return spec
        source = self.core.source(name) if name.startswith("fnmesh") else None
        if source is None:
            return None
        return ModuleSpec(name, _Embedded(source), origin=f"<{name}>", is_package=name == "fnmesh")

    def invalidate_caches(self):
        pass


def install():
    sys.meta_path.insert(0, _Finder(sys.modules["fnmesh._core"]))

# Run as `python -c BOOTSTRAP DESCRIPTORS EXTENSION`: hands the interpreter over to the worker core.
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

spec = ModuleSpec("fnmesh_python", ExtensionFileLoader("fnmesh_python", sys.argv[2]), origin=sys.argv[2])
core = sys.modules["fnmesh._core"] = spec.loader.create_module(spec)
spec.loader.exec_module(core)
core.main([int(fd) for fd in sys.argv[1].split(",")])

"""stdout, stderr and ``logging`` of the app, as logs of the call they belong to."""

import io
import os
import sys

from fnmesh import _core


class _Stream(io.TextIOBase):
    """What ``print`` writes to."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True

    def __init__(self, number, name):
        self._number = number
        self.name = name
        self.mode = "w"
        self.buffer = _Bytes(self)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        _core.write(self._number, text)
        return len(text)

    def fileno(self):
        # The real one, for programs the app starts; the node reads its lines, too.
        return self._number + 1

    def writable(self):
        return True

    def reconfigure(self, **_):
        pass

    def close(self):
        # As nobody could open it again.
        pass


class _Bytes(io.RawIOBase):
    """The stream's ``buffer``."""

    def __init__(self, stream):
        self._stream = stream
        self.raw = self

    def write(self, data):
        data = bytes(data)
        self._stream.write(data.decode("utf-8", "backslashreplace"))
        return len(data)

    def fileno(self):
        return self._stream.fileno()

    def writable(self):
        return True

    def close(self):
        pass


def install():
    """Takes over what this process prints."""
    sys.stdout, sys.stderr = _Stream(0, "<stdout>"), _Stream(1, "<stderr>")
    os.register_at_fork(after_in_child=_after_fork)
    if "logging" in sys.modules:
        adopt(sys.modules["logging"])


def _after_fork():
    if _core.after_fork():
        # An instance that a zygote forked goes on as what it is.
        return
    for name in ("stdout", "stderr"):
        if isinstance(getattr(sys, name), _Stream):
            real = getattr(sys, f"__{name}__")
            # A pool ends its processes by signal, which flushes nothing.
            real.reconfigure(line_buffering=True)
            setattr(sys, name, real)


def adopt(logging):
    """Makes records logs with their level, unless the app sets up handlers of its own."""

    class Handler(logging.Handler):
        def emit(self, record):
            try:
                _core.record(min(max(record.levelno, 0), 0xFFFF), self.format(record))
            except Exception:
                self.handleError(record)

    set_up = logging.basicConfig

    def basicConfig(**options):
        # `logging.info()` and the like call this too, to get a handler at all.
        if not options.keys() & {"stream", "filename", "handlers"}:
            options = {"format": "%(message)s", **options, "handlers": [Handler()]}
        set_up(**options)

    basicConfig.__doc__ = set_up.__doc__
    logging.basicConfig = basicConfig
    # Gets the records for which no logger has a handler.
    logging.lastResort = Handler()

"""Starts real workers and speaks the worker protocol with them over socket pairs."""

import collections
import ctypes
import fcntl
import json
import os
import queue
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BOOTSTRAP = os.path.join(ROOT, "runtime", "python", "src", "bootstrap.py")
EXTENSION = os.environ.get("FNMESH_PYTHON_EXTENSION") or os.path.join(
    os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "debug", "libfnmesh_python.so"
)
#: Nothing in these tests may take longer.
PATIENCE = 20

LOAD, READY, INVOKE, RESULT, ERROR, CHUNK, CANCEL, CREDIT, LOG, PING, PONG, STOP, BIND, FORK, FORKED = range(1, 16)
JSON, BYTES, TEXT, NONE = range(4)
UNKNOWN_FUNCTION, INVALID_INPUT, RAISED, CANCELLED, LOAD_FAILED, INTERNAL = 1001, 1002, 1003, 1005, 1006, 32933


class Frame(collections.namedtuple("Frame", "kind format aux id meta body")):
    """One frame, without its lengths."""

    def value(self):
        """The body in Python: JSON decoded, text as str."""
        if self.format == JSON:
            return json.loads(self.body)
        return self.body.decode() if self.format == TEXT else self.body

    def head(self):
        """The response head in its meta."""
        return json.loads(self.meta)

    def encode(self):
        length = 12 + len(self.meta) + len(self.body)
        head = struct.pack("<IBBHII", length, self.kind, self.format, self.aux, self.id, len(self.meta))
        return head + self.meta + self.body


def frame(kind, id=0, body=b"", format=NONE, aux=0, meta=b""):
    return Frame(kind, format, aux, id, meta, body)


class Channel:
    """The node's end of one channel, with a thread that sorts what arrives by call."""

    def __init__(self, worker, number, end):
        self.worker, self.number, self.socket = worker, number, end
        self.arrived = {}
        self.order = []
        self.reading = threading.Event()
        self.reading.set()
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def send(self, *frames):
        self.socket.sendall(b"".join(frame.encode() for frame in frames))

    def next(self, id, timeout=PATIENCE):
        """The next frame of this call that is no log."""
        try:
            return self._queue(id).get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no frame for call {id} within {timeout} s; {self.worker.state()}") from None

    def _queue(self, id):
        # Atomic, as two threads may meet here.
        return self.arrived.setdefault(id, queue.SimpleQueue())

    def _read(self):
        # Grows in place: copying what is there for each read would take seconds for a large answer.
        buffer = bytearray()
        while True:
            self.reading.wait()
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self.closed.set()
                return
            buffer += data
            while len(buffer) >= 16:
                length, kind, format, aux, id, meta = struct.unpack_from("<IBBHII", buffer)
                if len(buffer) < length + 4:
                    break
                rest = bytes(memoryview(buffer)[16 : length + 4])
                del buffer[: length + 4]
                self._sort(Frame(kind, format, aux, id, rest[:meta], rest[meta:]))

    def _sort(self, arrived):
        self.order.append(arrived)
        if arrived.kind == LOG:
            self.worker.logs.append(arrived)
        else:
            self._queue(arrived.id).put(arrived)


class Worker:
    """A worker process with an app made of `files` (name to source)."""

    #: `aux` of the load frame.
    MODE = 0

    def __init__(self, files, channels=2, modules=None, settings=None, python=None, environment=None, **load):
        self.directory = tempfile.mkdtemp(prefix="fnmesh-test-")
        for name, source in files.items():
            path = os.path.join(self.directory, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(source)
        self.logs, self.functions, self.status = [], {}, None
        self.ids = iter(range(1, 1 << 31))
        pairs = [socket.socketpair() for _ in range(channels)]
        self.pid = self._spawn(python or sys.executable, [theirs for _, theirs in pairs], environment or {})
        self.channels = [Channel(self, number, ours) for number, (ours, _) in enumerate(pairs)]
        names = modules or [name for name in files if "/" not in name and name.endswith(".py")]
        body = {
            "protocol": 1,
            "app": "test",
            "directory": self.directory,
            "max_reply_bytes": 64 << 20,
            "concurrency": 100,
            "modules": [
                {"name": name[:-3].replace("/", "."), "file": name, "settings": settings or {}} for name in names
            ],
            **load,
        }
        self.channels[0].send(frame(LOAD, body=json.dumps(body).encode(), format=JSON, aux=self.MODE))

    def _spawn(self, python, ends, environment):
        # Away from the numbers the worker gets them by.
        high = [fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for end in ends]
        actions = [(os.POSIX_SPAWN_DUP2, fd, 3 + number) for number, fd in enumerate(high)]
        actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
        for fd, name in ((1, "stdout"), (2, "stderr")):
            path = os.path.join(self.directory, f".{name}")
            actions.append((os.POSIX_SPAWN_OPEN, fd, path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        with open(BOOTSTRAP) as file:
            fds = ",".join(str(3 + number) for number in range(len(ends)))
            arguments = [python, "-c", file.read(), fds, EXTENSION]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            return os.posix_spawn(python, arguments, environment, file_actions=actions)
        finally:
            os.chdir(before)
            for end in ends:
                end.close()
            for fd in high:
                os.close(fd)

    def ready(self):
        """Waits until it is loaded."""
        answer = self.channels[0].next(0)
        if answer.kind != READY:
            raise AssertionError(f"not ready: {answer.value()['stack'] or answer.value()}")
        self.description = answer.value()
        self.functions = {entry["name"]: index for index, entry in enumerate(self.description["functions"])}
        return self

    def invocation(self, function, body=b"", format=JSON, budget=30000, extra=None, id=None, index=None):
        """An `invoke` frame. A body that is not bytes goes as JSON."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        id = next(self.ids) if id is None else id
        meta = id.to_bytes(16, "big") + struct.pack("<I", budget) + (json.dumps(extra).encode() if extra else b"")
        return frame(INVOKE, id, body, format, self.functions[function] if index is None else index, meta)

    def start(self, function, body=b"", channel=1, **options):
        """Sends a call; its id."""
        invoke = self.invocation(function, body, **options)
        self.channels[channel].send(invoke)
        return invoke.id

    def wait(self, id, channel=1, timeout=PATIENCE):
        """The next frame of a call."""
        return self.channels[channel].next(id, timeout)

    def call(self, function, body=b"", channel=1, **options):
        """A call and its one answer."""
        return self.wait(self.start(function, body, channel, **options), channel)

    def value(self, function, body=b"", **options):
        """The value a call answers with."""
        answer = self.call(function, body, **options)
        if answer.kind != RESULT:
            raise AssertionError(f"{function} failed: {answer.aux} {answer.value()}")
        return answer.value()

    def error(self, function, body=b"", **options):
        """The code a call fails with, and what it says."""
        answer = self.call(function, body, **options)
        if answer.kind != ERROR:
            raise AssertionError(f"{function} did not fail: {answer}")
        return answer.aux, answer.value()

    def cancel(self, id, channel=1):
        self.channels[channel].send(frame(CANCEL, id))

    def credit(self, id, chunks, channel=1):
        self.channels[channel].send(frame(CREDIT, id, aux=chunks))

    def lines(self, id=None, level=None):
        """The text of logs."""
        logs = [log for log in self.logs if id in (None, log.id) and level in (None, log.aux)]
        return [log.body.decode() for log in logs]

    def output(self, name):
        """What reached the real stdout or stderr."""
        with open(os.path.join(self.directory, f".{name}")) as file:
            return file.read()

    def stop(self):
        """Asks it to stop; its exit status."""
        self.channels[0].send(frame(STOP))
        return self.exit_status()

    def exit_status(self):
        """Waits until it is gone; its status as of a shell, negative for a signal."""
        until(lambda: self.poll() is not None, "the worker to exit")
        for channel in self.channels:
            channel.closed.wait(PATIENCE)
        return self.status

    def poll(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def state(self):
        return f"status {self.poll()}, stderr: {self.output('stderr')[-2000:]!r}, logs: {self.lines()[-20:]}"

    def close(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            until(lambda: self.poll() is not None, "the worker to die")
        for channel in self.channels:
            channel.reading.set()
            channel.socket.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Zygote(Worker):
    """A worker process that forks instances of its app. This process becomes their parent."""

    MODE = 1

    def ready(self):
        """Waits until the app is loaded."""
        answer = self.channels[0].next(0)
        if answer.kind != READY:
            raise AssertionError(f"not ready: {answer.value()}")
        return self

    def ask(self, channels=2, batch=128, temporary=None):
        """Asks for an instance: what the zygote says, and the instance's ends as `Instance` takes them."""
        body = json.dumps({"temporary": temporary}).encode()
        pairs = [socket.socketpair() for _ in range(channels)]
        pipes = [os.pipe() for _ in range(2)]
        fds = [theirs for _, theirs in pipes] + [theirs.fileno() for _, theirs in pairs]
        batches = [fds[start : start + batch] for start in range(0, len(fds), batch)]
        for left, batch in zip(reversed(range(len(batches))), batches):
            socket.send_fds(self.channels[1].socket, [frame(FORK, body=body, format=JSON, aux=left).encode()], batch)
        for _, theirs in pipes:
            os.close(theirs)
        for _, theirs in pairs:
            theirs.close()
        return self.channels[0].next(0), ([ours for ours, _ in pairs], [ours for ours, _ in pipes])

    def fork(self, **options):
        """An instance."""
        answer, ends = self.ask(**options)
        if answer.kind != FORKED:
            raise AssertionError(f"not forked: {answer}")
        value = answer.value()
        return Instance(value.get("pid", self.pid), *ends), value


class Instance(Worker):
    """A worker process that a zygote forked."""

    def __init__(self, pid, sockets, pipes):
        self.pid, self.pipes = pid, pipes
        self.logs, self.functions, self.status = [], {}, None
        self.ids = iter(range(1, 1 << 31))
        self.channels = [Channel(self, number, ours) for number, ours in enumerate(sockets)]

    def output(self, name):
        """What is in the pipe now."""
        pipe = self.pipes[("stdout", "stderr").index(name)]
        os.set_blocking(pipe, False)
        try:
            return os.read(pipe, 1 << 16).decode()
        except BlockingIOError:
            return ""

    def close(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            until(lambda: self.poll() is not None, "the instance to die")
        for channel in self.channels:
            channel.socket.close()
        for pipe in self.pipes:
            os.close(pipe)


def adopt_orphans():
    """What a node does: makes this process the parent of those whose parent died."""
    PR_SET_CHILD_SUBREAPER = 36
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def until(condition, what, timeout=PATIENCE):
    """Waits for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}")
        time.sleep(0.002)


class WorkerTestCase(unittest.TestCase):
    """Tests that share a worker with the app in `APP` or start their own."""

    #: File names and sources of the shared worker's app.
    APP = None
    LOAD = {}

    @classmethod
    def setUpClass(cls):
        if not os.path.exists(EXTENSION):
            raise AssertionError(f"{EXTENSION} is missing: run `cargo build -p fnmesh-python`")
        cls.worker = None
        if cls.APP is not None:
            cls.worker = Worker(cls.APP, **cls.LOAD)
            cls.addClassCleanup(cls.worker.close)
            cls.worker.ready()

    def start_worker(self, files, type=Worker, **options):
        """A worker of this test alone."""
        if isinstance(files, str):
            files = {"app.py": files}
        worker = type(files, **options)
        self.addCleanup(worker.close)
        return worker

"""The zygote: what it forks, and what it cannot."""

import os
import signal
import tempfile
import unittest

from harness import ERROR, LOAD_FAILED, RESULT, STOP, WorkerTestCase, Zygote, adopt_orphans, frame, until

APP = r"""
import atexit, logging, os, random, sys, threading
at_import = os.getpid()
print("loading")
sys.__stdout__.write("buffered")
hooks = []
os.register_at_fork(
    before=lambda: hooks.append("before"),
    after_in_parent=lambda: hooks.append("parent"),
    after_in_child=lambda: hooks.append("child"),
)
def __metacall_initialize__(): hooks.append(f"initialize in {'instance' if os.getpid() != at_import else 'zygote'}")
def __metacall_finalize__(): print("finalized")
atexit.register(print, "at exit")
def seen(): return hooks
def ids(): return [os.getpid(), at_import, os.getppid(), os.getsid(0)]
def draw(): return random.random()
def say(text):
    print(text)
    os.write(1, f"raw {text}\n".encode())
    os.write(2, f"error {text}\n".encode())
def warn(text): logging.warning(text)
def main_thread(): return threading.current_thread() is threading.main_thread()
def fork():
    pid = os.fork()
    if pid == 0: return "child"
    return os.waitpid(pid, 0)[1]
def exits(status): os._exit(status)
async def later(value): return value
"""


def links(pid):
    """What the open files of a process are."""
    return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


class ZygoteTestCase(WorkerTestCase):
    @classmethod
    def setUpClass(cls):
        adopt_orphans()
        super().setUpClass()

    def zygote(self, source=APP, **options):
        return self.start_worker(source, Zygote, **options).ready()

    def instance(self, zygote, **options):
        instance, answer = zygote.fork(**options)
        self.addCleanup(instance.close)
        return instance, answer


class Forks(ZygoteTestCase):
    def test_instances_are_children_of_the_node_with_sessions_of_their_own(self):
        zygote = self.zygote()
        for _ in range(2):
            instance, _ = self.instance(zygote)
            self.assertEqual(instance.ready().value("ids"), [instance.pid, zygote.pid, os.getpid(), instance.pid])
        self.assertEqual(len(os.listdir(f"/proc/{zygote.pid}/task")), 1)

    def test_hooks_run_where_they_belong(self):
        zygote = self.zygote()
        first, _ = self.instance(zygote)
        self.assertEqual(first.ready().value("seen"), ["before", "child", "initialize in instance"])
        second, _ = self.instance(zygote)
        self.assertEqual(
            second.ready().value("seen"), ["before", "parent", "before", "child", "initialize in instance"]
        )

    def test_each_has_random_numbers_of_its_own(self):
        zygote = self.zygote()
        drawn = {self.instance(zygote)[0].ready().value("draw") for _ in range(3)}
        self.assertEqual(len(drawn), 3)

    def test_output_goes_to_the_pipes_of_the_instance(self):
        zygote = self.zygote()
        instances = [self.instance(zygote)[0].ready() for _ in range(2)]
        for name, instance in zip(("one", "two"), instances):
            instance.value("say", [name])
            instance.value("warn", [f"{name} warns"])
        for name, instance in zip(("one", "two"), instances):
            self.assertEqual(instance.output("stdout"), f"raw {name}\n")
            self.assertEqual(instance.output("stderr"), f"error {name}\n")
            self.assertEqual(instance.lines(), [name, f"{name} warns"])
        self.assertEqual(zygote.lines(), ["loading"])
        self.assertEqual(zygote.output("stdout"), "buffered")

    def test_instance_has_its_own_files_and_no_others(self):
        zygote = self.zygote("def f(): ...")
        instance, _ = self.instance(zygote, channels=3)
        instance.ready()
        files, shared = links(instance.pid), links(zygote.pid)
        self.assertEqual(sum(file.startswith("socket:") for file in files), 3, files)
        self.assertEqual([file for file in files & shared if file.startswith("socket:")], [])
        self.assertEqual({file for file in files - shared if not file.startswith(("socket:", "pipe:"))}, {"anon_inode:[eventfd]"})
        self.assertEqual(sum(file.startswith("pipe:") for file in files - shared), 2)

    def test_more_channels_than_one_message_takes(self):
        instance, _ = self.instance(self.zygote(), channels=7, batch=2)
        self.assertEqual(instance.ready().value("ids", channel=6)[0], instance.pid)

    def test_each_has_a_temporary_directory_of_its_own(self):
        source = "import os, tempfile\ntempfile.gettempdir()\ndef places(): return [os.environ['TMPDIR'], tempfile.gettempdir()]"
        with tempfile.TemporaryDirectory() as directory:
            own = os.path.join(directory, "1")
            os.mkdir(own)
            zygote = self.zygote(source, environment={"TMPDIR": directory})
            instance, _ = self.instance(zygote, temporary=own)
            self.assertEqual(instance.ready().value("places"), [own, own])
        with tempfile.TemporaryDirectory() as named:
            # The app's own choice, which the node does not know of.
            zygote = self.zygote(source, environment={"TMPDIR": named})
            instance, _ = self.instance(zygote, temporary=own)
            self.assertEqual(instance.ready().value("places"), [named, named])

    def test_instance_behaves_as_any_other(self):
        instance, _ = self.instance(self.zygote())
        instance.ready()
        self.assertTrue(instance.value("main_thread"))
        self.assertEqual(instance.value("later", [5]), 5)
        self.assertEqual(instance.value("fork"), 0)
        self.assertEqual(instance.stop(), 0)
        self.assertEqual(instance.lines(0), ["finalized", "at exit"])

    def test_end_of_an_instance_is_known_and_its_own(self):
        zygote = self.zygote()
        other = self.instance(zygote)[0].ready()
        for end, status in ((lambda it: it.start("exits", [7]), 7), (lambda it: os.kill(it.pid, signal.SIGSEGV), -11)):
            instance = self.instance(zygote)[0].ready()
            end(instance)
            self.assertEqual(instance.exit_status(), status)
        os.kill(zygote.pid, signal.SIGKILL)
        zygote.exit_status()
        self.assertEqual(other.value("ids")[0], other.pid)

    def test_zygote_stops_without_hooks(self):
        zygote = self.zygote()
        self.instance(zygote)[0].ready()
        zygote.channels[0].send(frame(STOP))
        self.assertEqual(zygote.exit_status(), 0)
        self.assertEqual(zygote.lines(), ["loading"])

    def test_generator_of_numpy_is_seeded_anew(self):
        # numpy itself need not be there for this.
        files = {
            "app.py": "import numpy.random\ndef seeded(): return numpy.random.seeded\n",
            "numpy/__init__.py": "",
            "numpy/random.py": "import os\nseeded = []\ndef seed(): seeded.append(os.getpid())\n",
        }
        instance, _ = self.instance(self.zygote(files))
        self.assertEqual(instance.ready().value("seeded"), [instance.pid])


class Refusals(ZygoteTestCase):
    def test_zygote_that_must_not_fork_becomes_the_instance(self):
        cases = {
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()": "it started a thread",
            "import socket\nsockets = socket.socketpair()": "it opened a socket",
            "import os\npipe = os.pipe()": "it opened a pipe",
            "import os\nfile = open(__file__)": "it opened the file ",
            "import select\npoll = select.epoll()": "it opened anon_inode:[eventpoll]",
            "import subprocess\np = subprocess.Popen(['sleep', '60'])": "it started a process",
            "import mmap\nm = mmap.mmap(-1, 4096)": "it maps shared memory (/dev/zero (deleted))",
            "import tempfile\nd = tempfile.TemporaryDirectory()": "it made something that TemporaryDirectory._cleanup cleans up at exit",
        }
        for source, reason in cases.items():
            with self.subTest(source):
                zygote = self.zygote(f"{source}\nimport os\nat_import = os.getpid()\ndef ids(): return [os.getpid(), at_import]\n")
                instance, answer = zygote.fork()
                self.assertTrue(answer["reason"].startswith(reason), answer)
                self.assertEqual(instance.ready().value("ids"), [zygote.pid, zygote.pid])
                self.assertEqual(instance.stop(), 0)
                zygote.status = instance.status
                instance.close()

    def test_app_that_cannot_be_loaded_says_why(self):
        zygote = self.start_worker("raise RuntimeError('closed today')", Zygote)
        answer = zygote.channels[0].next(0)
        self.assertEqual((answer.kind, answer.aux, answer.value()["message"]), (ERROR, LOAD_FAILED, "closed today"))
        self.assertEqual(zygote.exit_status(), 1)

    def test_failing_hook_fails_the_instance_alone(self):
        zygote = self.zygote("def __metacall_initialize__(): raise RuntimeError('closed today')\ndef f(): ...")
        for _ in range(2):
            instance, _ = self.instance(zygote)
            answer = instance.channels[0].next(0)
            self.assertEqual((answer.kind, answer.value()["message"]), (ERROR, "closed today"))
            self.assertEqual(instance.exit_status(), 1)

    def test_flood_while_loading_arrives(self):
        source = "for n in range(20000): print('x' * 100)\ndef f(): return 1"
        for type in (True, False):
            worker = self.zygote(source) if type else self.start_worker(source)
            instance = self.instance(worker)[0] if type else worker
            self.assertEqual(instance.ready().call("f").kind, RESULT)
            until(lambda worker=worker: len(worker.lines(0)) == 20000, "all lines")


if __name__ == "__main__":
    unittest.main()

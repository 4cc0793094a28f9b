"""The event loop: one thread that runs all coroutines and asynchronous generators of the app."""

import asyncio
import sys
import threading
from contextvars import ContextVar

from fnmesh import _core

_current = ContextVar("fnmesh_call", default=None)
_waiters = {}
_loop = asyncio.new_event_loop()

#: The task that the calling code belongs to, or None.
current_task = _current.get


def wake():
    """Has the tasks started that wait in the core."""
    _loop.call_soon_threadsafe(_start_tasks)


def tell(what, task):
    """Has a task cancelled, or resumed as it got credit."""
    _loop.call_soon_threadsafe({"cancel": _cancel, "resume": _resume}[what], task)


def flush_soon():
    """Has the core write what was answered, after everything else of this turn."""
    _loop.call_soon(_core.flush_tasks)


def run(coroutine):
    """Runs a coroutine on the event loop, from another thread."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result()


def _start_tasks():
    for task in _core.take_tasks():
        _current.set(task)
        task.set_handle(_loop.create_task(_run(task)))


async def _run(task):
    work = task.work()
    try:
        if task.cancelled:
            if hasattr(work, "close"):
                work.close()
            raise asyncio.CancelledError
        items = work
        if hasattr(type(work), "__await__"):
            items = task.answer(await work)
        while items is not None and hasattr(type(items), "__await__"):
            items = task.answer(await items)
        if items is not None:
            await _stream(task, items)
    except BaseException as error:
        task.fail(error)


async def _stream(task, items):
    asynchronous = hasattr(type(items), "__aiter__")
    try:
        if asynchronous:
            async for item in items:
                if not await _send(task, item):
                    return
        else:
            for item in items:
                if not await _send(task, item):
                    return
                # Others get their turn between two items.
                await asyncio.sleep(0)
    finally:
        close = getattr(items, "aclose" if asynchronous else "close", None)
        if close is not None:
            closing = close()
            if asynchronous:
                await closing
    task.end()


async def _send(task, item):
    while not task.may_send():
        _waiters[task] = waiter = _loop.create_future()
        try:
            await waiter
        finally:
            del _waiters[task]
    return task.send(item)


def _cancel(task):
    handle = task.handle()
    # One that has not begun sees by itself that it is cancelled.
    if handle is not None and task.begun:
        handle.cancel()


def _resume(task):
    waiter = _waiters.get(task)
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _serve():
    asyncio.set_event_loop(_loop)
    while True:
        try:
            _loop.run_forever()
        except BaseException:
            # SystemExit and KeyboardInterrupt of a task that the app started itself.
            sys.excepthook(*sys.exc_info())


threading.Thread(target=_serve, name="fnmesh-loop", daemon=True).start()

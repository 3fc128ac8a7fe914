"""The deciding thread as others see it: they hand it calls and wait for the answer, and it never waits for them."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
CALL_S = 5.0
"""Who waits longer than this for the deciding thread hears that it is busy; what was asked may still be done."""


class BusyError(TimeoutError):
    """The deciding thread did not answer in time."""


class Deciding:
    """The thread of an event loop. `call` and `ask` may come from any other thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """To be made in the thread that runs `loop`."""
        self.loop = loop
        self._ident = threading.get_ident()

    def call(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Run a function in the deciding thread, in turn."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # who asked has given it up
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        try:
            self.loop.call_soon_threadsafe(run)
        except RuntimeError as error:  # the loop is closed
            future.set_running_or_notify_cancel()
            future.set_exception(BusyError(f"the deciding thread has ended: {error}"))
        return future

    def ask(self, function: Callable[..., T], *arguments: Any, timeout_s: float = CALL_S) -> T:
        """Run a function there and wait. Raises what it raised, or BusyError."""
        if threading.get_ident() == self._ident:
            return function(*arguments)
        try:
            return self.call(function, *arguments).result(timeout_s)
        except TimeoutError as error:
            if isinstance(error, BusyError):
                raise
            raise BusyError(f"the deciding thread did not answer within {timeout_s:g} s") from error

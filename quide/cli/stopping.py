"""The end of a command by a signal: one line, and 128 plus the signal's number, whatever became of the exception."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

WORDS = {"SIGINT": "interrupted", "SIGTERM": "ended by a signal (SIGTERM)", "SIGHUP": "ended by a signal (SIGHUP)"}
_caught: list[int] = []  # libraries turn the exception into others, or swallow it


def listen() -> None:
    """Raise ``KeyboardInterrupt`` at each of the signals that nobody has set to be ignored, as ``nohup`` does."""
    _caught.clear()
    _set(_stop)


def stopped() -> int | None:
    """The exit code, once a signal has come; the line is printed."""
    _set(_end)
    if not _caught:
        return None
    print(f"quide: {WORDS[signal.Signals(_caught[0]).name]}", file=sys.stderr)
    eval("0")  # else Python ends as of SIGINT where the exception once left the exec() of a text, such as dataclass's
    return 128 + _caught[0]


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """The same while the command itself is imported, where nobody is there yet to catch it."""
    if sys.argv[0] == "-m" or sys.argv[0].rpartition("/")[2] == "quide":
        listen()
    try:
        yield
    except BaseException:
        if (code := stopped()) is not None:
            sys.exit(code)
        raise


def _set(handler: object) -> None:
    if threading.current_thread() is threading.main_thread():
        for name in WORDS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("torch", "<module>"):
            # Its C++ calls Python while it is imported, and ends in abort() at an exception: later.
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            return
        frame = frame.f_back
    _caught.append(number)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    """While Python ends nobody is there to catch an exception; after a first signal nothing is left to say."""
    if not _caught:
        _caught.append(number)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        stopped()
    os._exit(128 + _caught[0])

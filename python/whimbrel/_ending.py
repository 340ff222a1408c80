"""The end of a worker's process: why it ends reaches the coordinator, and a signal ends a wait at once."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal
import socket
import sys
import threading
import traceback
from types import TracebackType

import torch

from . import NonfiniteGradient, RetryableError, WhimbrelError
from ._native import NotAWorker, Session

_PACKAGES = (os.path.dirname(__file__), os.path.dirname(torch.__file__))
# The process that is the worker. Processes that it starts inherit the agent's variables, and this one.
_PROCESS = "WHIMBREL_PROCESS"


class Ending:
    """Watches for the end of a worker, from the import of :mod:`whimbrel.torch` on.

    Attributes:
        is_over: The coordinator has ended the worker, so nothing is to report.
    """

    def __init__(self, session: Session) -> None:
        self.is_over = False
        self._session = session
        self._has_connected = False
        # The run's first step is not applied yet: an error of the program's would come back on any worker.
        self._is_early = True
        self._process = os.getpid()
        self._before = sys.excepthook
        sys.excepthook = self._report
        atexit.register(self._exits)
        self._wake_on_signals()

    def connect(self) -> Session:
        """Connects the session to the coordinator."""
        self.check_process()
        self._has_connected = True
        self._session.connect()
        self._is_early = not self._session.has_begun()
        return self._session

    def is_at(self, step: int) -> None:
        """Notes the step that the program computes, or that it applies."""
        self._is_early = step == 0

    def check_process(self) -> None:
        """Raises an error in a process that was forked from the worker."""
        if os.getpid() != self._process:
            raise WhimbrelError(
                "this process was forked from a worker after join(), and the connections are the worker's: start "
                'processes before join(), or with multiprocessing\'s "spawn"'
            )

    def _report(self, kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if os.getpid() != self._process:
            self._before(kind, value, trace)
            return
        self.is_over = True
        if issubclass(kind, KeyboardInterrupt):
            # Not the program's failure. The peers learn of it at once, by the closed connections.
            self._session.close()
            self._before(kind, value, trace)
            _prepare_end()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self._before(kind, value, trace)
        sys.stderr.flush()
        self._fail_of(value)
        _prepare_end()
        os._exit(1)

    def _exits(self) -> None:
        if os.getpid() != self._process or self.is_over:
            return
        error = getattr(sys, "last_value", None)
        if error is not None:  # another library has replaced the hook
            self._fail_of(error)
        elif self._has_connected:
            self._fail("the program ended before its run: the loop over the run was left, or it called sys.exit()")
        # Else it is perhaps not the program that trains, but one that is started before it.

    def _fail_of(self, error: BaseException) -> None:
        # The same on every worker, at any step.
        self._is_early |= isinstance(error, NonfiniteGradient)
        self._fail(_describe(error), _may_mend(error))

    def _fail(self, reason: str, may_mend: bool = False) -> None:
        if not self._has_connected:
            try:
                self.connect()
            except WhimbrelError:
                return  # the coordinator is away, or has given this worker up: it sees the process end
        self._session.fail(reason, self._is_early and not may_mend)

    def _wake_on_signals(self) -> None:
        """Ends what the training thread waits in when a signal comes that Python handles; Python's handler runs then.

        Without it, Ctrl-C would wait for the next step.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        ours, pythons = socket.socketpair()
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        if before != -1:  # another library's: leave it
            signal.set_wakeup_fd(before)
            return

        def watch() -> None:
            # The sockets live as long as this thread, which ends with the process.
            while pythons.fileno() >= 0 and (received := ours.recv(1)):
                # Others, such as the end of a child, are no reason to end.
                if received[0] in (signal.SIGINT, signal.SIGTERM):
                    self.is_over = True
                    self._session.cancel(signal.Signals(received[0]).name)

        threading.Thread(target=watch, name="whimbrel-signals", daemon=True).start()


def _begin() -> Ending | None:
    try:
        session = Session()
    except NotAWorker:
        return None
    if os.environ.setdefault(_PROCESS, str(os.getpid())) != str(os.getpid()):
        return None
    return Ending(session)


_ENDING = _begin()


def ending() -> Ending | None:
    """The ending of this process, if an agent has started it.

    Raises:
        WhimbrelError: A worker has started this process.
    """
    if _ENDING is None and os.environ.get(_PROCESS, str(os.getpid())) != str(os.getpid()):
        raise WhimbrelError(
            "a worker has started this process, and only the worker itself joins its run: write "
            'if __name__ == "__main__": before what the worker alone is to do'
        )
    return _ENDING


def _prepare_end() -> None:
    """Does what Python does before a process ends after an exception, but for one thing.

    Python takes down every module first. PyTorch has 2,000 of them. That takes seconds, in which no other worker
    starts in the slot.
    """
    atexit._run_exitfuncs()
    # The program's own objects, and then what they have left open.
    sys.modules["__main__"].__dict__.clear()
    for found in gc.get_objects():
        if issubclass(type(found), io.IOBase):
            with contextlib.suppress(Exception):  # its reader is gone, or it is closed
                found.flush()


def _describe(error: BaseException) -> str:
    """The error in one line, with the line of the program that it came through last."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    programs = [frame for frame in frames if not frame.filename.startswith(_PACKAGES)]
    if not frames:
        return text
    frame = (programs or frames)[-1]
    return f"{text} ({os.path.basename(frame.filename)}, line {frame.lineno}, in {frame.name})"


def _may_mend(error: BaseException | None) -> bool:
    """Whether another worker may not have the error, or an error that it was raised from.

    A file server was away, the memory was short, or the program says so.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, (OSError, MemoryError, torch.OutOfMemoryError, RetryableError)):
            return True
        if "can't allocate memory" in str(error):  # of PyTorch's allocator for the CPU
            return True
        error = error.__cause__
    return False

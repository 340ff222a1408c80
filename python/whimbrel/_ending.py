"""The end of the process: why it ends reaches the coordinator, and a signal ends a wait at once."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import traceback
from types import TracebackType

import torch

from . import WhimbrelError
from ._native import Session

_PACKAGES = (os.path.dirname(__file__), os.path.dirname(torch.__file__))


class Ending:
    """Watches for the end of a worker.

    Attributes:
        is_over: The coordinator has ended the worker, so nothing is to report.
        is_first_step: The run's first step is not applied yet: an error of the program's would come back.
    """

    def __init__(self, session: Session) -> None:
        self.is_over = False
        self.is_first_step = False
        self._session = session
        self._process = os.getpid()
        self._before = sys.excepthook
        sys.excepthook = self._report
        atexit.register(self._exits)
        self._wake_on_signals()

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
            return
        self._before(kind, value, trace)
        sys.stderr.flush()
        self._session.fail(_describe(value, trace), self.is_first_step and not _may_mend(value))

    def _exits(self) -> None:
        if os.getpid() == self._process and not self.is_over:
            self._session.fail("the program ended before its run: the loop over the run was left", False)

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


def _describe(error: BaseException, trace: TracebackType | None) -> str:
    """The error in one line, with the line of the program that it came through last."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(trace)
    programs = [frame for frame in frames if not frame.filename.startswith(_PACKAGES)]
    if not frames:
        return text
    frame = (programs or frames)[-1]
    return f"{text} ({os.path.basename(frame.filename)}, line {frame.lineno}, in {frame.name})"


def _may_mend(error: BaseException) -> bool:
    """Whether another worker may not have the error: a file server was away, or the memory was short."""
    return isinstance(error, (OSError, MemoryError, torch.OutOfMemoryError))

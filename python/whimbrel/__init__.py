"""Distributed training that goes on when machines go away.

For PyTorch: ``from whimbrel.torch import join``. This module needs no PyTorch.
"""

from ._native import CoordinatorLost, NonfiniteGradient, WhimbrelError

__all__ = ["CoordinatorLost", "Leave", "NonfiniteGradient", "RetryableError", "WhimbrelError"]


class RetryableError(Exception):
    """A failure of the program that another try may mend.

    Raise it, or a class derived from it, or raise another error from it. An exception before the run's first step fails
    the run, since it would come back on any worker. This one, ``OSError`` and errors for a lack of memory do not: the
    coordinator starts another worker, up to ``workers.max_failures`` in a row.
    """


class Leave(SystemExit):
    """The coordinator ends this worker before the run is over: a person stops the run, or its node is needed.

    It is not an error. The loop over a run raises it, no ``except Exception`` catches it, and the process exits with 0,
    so that the code after the loop runs only when training is complete.
    """

    def __init__(self) -> None:
        super().__init__(0)

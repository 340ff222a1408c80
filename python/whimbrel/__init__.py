"""Distributed training that goes on when machines go away.

For PyTorch: ``from whimbrel.torch import join``. This module needs no PyTorch.
"""

from ._native import CoordinatorLost, NonfiniteGradient, WhimbrelError

__all__ = ["CoordinatorLost", "Leave", "NonfiniteGradient", "WhimbrelError"]


class Leave(SystemExit):
    """The coordinator ends this worker before the run is over: a person stops the run, or its node is needed.

    It is not an error. The loop over a run raises it, no ``except Exception`` catches it, and the process exits with 0,
    so that the code after the loop runs only when training is complete.
    """

    def __init__(self) -> None:
        super().__init__(0)

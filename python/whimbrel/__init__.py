"""Distributed training that goes on when machines go away.

For PyTorch: ``from whimbrel.torch import join``. This module needs no PyTorch but for :func:`load`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._native import CoordinatorLost, NonfiniteGradient, WhimbrelError

if TYPE_CHECKING:
    from ._checkpoint import Tensors

__all__ = ["CoordinatorLost", "Leave", "NonfiniteGradient", "RetryableError", "WhimbrelError", "load"]


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


def load(uri: str | os.PathLike[str], *, part: str | None = None) -> Tensors:
    """Opens a checkpoint of a run: ``model.load_state_dict(whimbrel.load("runs/nanogpt-x1", part="model"))``.

    Args:
        uri: The run's URI or path in any store, ``s3://bucket/runs/nanogpt-x1``: its newest checkpoint. With ``@400``
            after it, that of step 400.
        part: The name that the part has in ``join()``. Its tensors come without it: ``blocks.0.weight``. If not given,
            all tensors come, with the names that they have in the checkpoint.

    Returns:
        A mapping from names to tensors in host memory. They are read when they are asked for, and verified. A weight
        that is tied to another one is there under one of the names: pass ``strict=False`` to ``load_state_dict``. A
        complex tensor has a last dimension of 2.

    Raises:
        WhimbrelError: There is no such run or checkpoint, or it cannot be read; here, or when a tensor is asked for.
        KeyError: The checkpoint has no such part. The message says which it has.
    """
    from ._checkpoint import Tensors  # noqa: PLC0415 (it needs PyTorch)

    return Tensors(os.fspath(uri), part)

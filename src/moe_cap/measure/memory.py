"""What memory there is, and running out of it said in a way that a person understands."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import psutil
import torch

from moe_cap.errors import OutOfMemoryError
from moe_cap.measure.model_files import ModelFiles

GIB = 2**30
BYTES_PER_STORED = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}
ALLOCATION_FAILED = re.compile(
    r"can't allocate memory|Cannot allocate memory|not enough memory|std::bad_alloc", re.IGNORECASE
)


def free_bytes(device: str) -> float:
    """Bytes that a device (`cpu`, `cuda:0`) could still give."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(torch.device(device))[0])
    return float(psutil.virtual_memory().available)


def refuse_what_does_not_fit(files: ModelFiles, precision: str, device: str) -> None:
    """Compare the weights with what is free, before anything is loaded.

    Raises:
        OutOfMemoryError: they cannot fit; both numbers are in the message.
    """
    stored = 2.0 if files.config.get("dtype", files.config.get("torch_dtype")) != "float32" else 4.0
    needed = files.weights_bytes / stored * BYTES_PER_STORED.get(precision, stored)
    free = free_bytes(device)
    if needed > free:
        raise OutOfMemoryError(
            f"{files.name} in {precision} needs about {needed / GIB:.1f} GiB for its weights,"
            f" {device} has {free / GIB:.1f} GiB free"
        )


@contextlib.contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Turn every way in which an allocation fails into one error with the numbers.

    Raises:
        OutOfMemoryError: an allocation failed inside.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{doing}: the GPU ran out of memory ({_numbers('cuda:0')}): {_first_line(error)}"
        ) from error
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError) and not ALLOCATION_FAILED.search(str(error)):
            raise
        raise OutOfMemoryError(
            f"{doing}: the machine ran out of memory ({_numbers('cpu')}): {_first_line(error)}"
        ) from error


def _numbers(device: str) -> str:
    held = torch.cuda.memory_allocated() if device.startswith("cuda") else psutil.Process().memory_info().rss
    return f"this process holds {held / GIB:.1f} GiB, {free_bytes(device) / GIB:.1f} GiB are free"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

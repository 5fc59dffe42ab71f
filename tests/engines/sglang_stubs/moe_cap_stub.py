"""Stands in for packages whose published builds need CUDA, so that SGLang's server runs on a processor in tests.

Any name can be imported from a stubbed package and calling it is an error: what SGLang computes on a processor goes
through plain torch, and whatever would have been computed by a stub fails instead of giving a number.
"""

from __future__ import annotations

import importlib.machinery
import sys
import time
import types
from typing import Any


class Missing:
    """A name of a package that is not there."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Missing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Missing(f"{self.__name__}.{name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError(f"{self.__name__} is a stub: this build of it needs CUDA")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)


class Finder:
    """Finds every module below the stubbed packages."""

    def __init__(self, package: str) -> None:
        self._prefix = package + "."

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name.startswith(self._prefix) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: missing_in(spec.name, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is in it."""


def missing_in(package: str, name: str) -> Missing:
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing(f"{package}.{name}")


def stub(package: str) -> Any:
    """`__getattr__` of a stubbed package."""
    sys.meta_path.append(Finder(package))
    return lambda name: missing_in(package, name)


class HostEvent:
    """What torch.cuda.Event does, by the host's clock: on a processor a pass is over when its call returns."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._at_s: float | None = None

    def record(self, *arguments: Any) -> None:
        self._at_s = time.perf_counter()

    def query(self) -> bool:
        return self._at_s is not None

    def synchronize(self) -> None:
        """Nothing is ever under way."""

    def wait(self, *arguments: Any) -> None:
        """Nothing is ever under way."""

    def elapsed_time(self, end: HostEvent) -> float:
        assert self._at_s is not None
        assert end._at_s is not None
        return (end._at_s - self._at_s) * 1e3


class HostRuntime:
    """The two calls of the CUDA runtime that pin memory."""

    def cudaHostRegister(self, *arguments: Any) -> int:
        return 0

    def cudaHostUnregister(self, *arguments: Any) -> int:
        return 0


def host_instead_of_cuda(torch: Any) -> None:
    """The CUDA calls that SGLang makes whatever the device is."""
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.cuda.cudart = HostRuntime
    torch.cuda.check_error = lambda *arguments: None
    torch.cuda.Event = torch.cpu.Event = HostEvent
    torch.cuda.current_stream = lambda *arguments: 0
    torch.cpu.is_current_stream_capturing = lambda: False
    torch.cpu.empty_cache = lambda: None

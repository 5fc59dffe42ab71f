"""Which experts a transformers model sends its tokens to, recorded without touching the model's code.

First choice is the library's own extension point: an experts implementation registered with `ExpertsInterface` that
notes the top-k indices and calls the implementation that was set. The indices are what the router decided, whatever
its scoring, bias or group limits were; recomputing them from logits is wrong for some families. Where experts run by
their own `forward` (`eager`, among them the quantised ones) a pre-hook on the experts reads the same argument.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, ExpertsInterface

from moe_cap.errors import InvalidRunError

Sink = Callable[[torch.Tensor], None]

INDEX_ARGUMENTS = ("top_k_index", "router_indices")  # gpt-oss uses the second name
RECORDING = "moe_cap_recording_"

_SINKS: weakref.WeakKeyDictionary[nn.Module, Sink] = weakref.WeakKeyDictionary()


def expert_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that hold the routed experts, one per MoE layer, in layer order."""
    found = [(_layer_of(name), module) for name, module in model.named_modules() if _takes_indices(module)]
    return [module for _, module in sorted(found, key=lambda pair: pair[0])]


def _layer_of(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"(?:^|\.)(\d+)(?=\.)", name + "."))


def _takes_indices(module: nn.Module) -> bool:
    if hasattr(module, "is_concatenated") and hasattr(module, "has_gate"):  # set by @use_experts_implementation
        return True
    return any(argument in inspect.signature(type(module).forward).parameters for argument in INDEX_ARGUMENTS)


def _recording(implementation: str) -> str:
    """Name of the implementation that records and then calls `implementation`; registered on first use."""
    name = RECORDING + implementation
    if name not in ALL_EXPERTS_FUNCTIONS:
        inner = ALL_EXPERTS_FUNCTIONS[implementation]

        def record(module: nn.Module, hidden: torch.Tensor, indices: torch.Tensor, *rest: Any, **named: Any) -> Any:
            sink = _SINKS.get(module)
            if sink is not None:
                sink(indices)
            return inner(module, hidden, indices, *rest, **named)

        ExpertsInterface.register(name, record)
    return name


class Capture:
    """While entered, records the experts of every forward pass; `passes` holds one tensor per pass.

    Each is [tokens, MoE layers, top_k], tokens in the order of the flattened batch (sequence by sequence). After
    leaving, the model is as it was: same implementation, no hook.

    Raises:
        InvalidRunError: the model's experts cannot be watched, or a pass went through only some of its layers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.passes: list[torch.Tensor] = []
        self._model = model
        self._experts = expert_modules(model)
        self._rows: dict[int, torch.Tensor] = {}
        self._handles: list[Any] = []
        self._implementation: Any = None
        if not self._experts:
            raise InvalidRunError(
                f"{type(model).__name__} has no experts that take top-k indices, so none can be recorded"
            )

    def __enter__(self) -> Capture:
        for layer, module in enumerate(self._experts):
            _SINKS[module] = self._sink(layer)
        current = self._model.config.get_text_config()._experts_implementation
        if self._model._can_set_experts_implementation() and current in ALL_EXPERTS_FUNCTIONS:
            self._implementation = self._model.get_experts_implementation()
            self._model.set_experts_implementation(_recording(current))
        else:
            self._handles = [module.register_forward_pre_hook(_watch, with_kwargs=True) for module in self._experts]
        self._handles.append(self._model.register_forward_hook(self._end_of_pass))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._experts:
            _SINKS.pop(module, None)
        if self._implementation is not None:
            self._model.set_experts_implementation(self._implementation)

    def _sink(self, layer: int) -> Sink:
        def note(indices: torch.Tensor) -> None:
            self._rows[layer] = indices.detach().reshape(-1, indices.shape[-1])

        return note

    def _end_of_pass(self, model: nn.Module, arguments: Any, output: Any) -> None:
        if len(self._rows) != len(self._experts):
            raise InvalidRunError(f"a pass went through {len(self._rows)} of {len(self._experts)} MoE layers")
        layers = [self._rows[layer] for layer in range(len(self._experts))]
        self.passes.append(torch.stack(layers, dim=1).to("cpu", torch.int16))
        self._rows = {}


def _watch(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    indices = next((named[name] for name in INDEX_ARGUMENTS if name in named), None)
    _SINKS[module](arguments[1] if indices is None else indices)

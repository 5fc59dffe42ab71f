"""transformers with Accelerate's offload: decoder layers lie elsewhere and are brought in for every pass.

On CUDA as many layers as the GPU has room for stay there, the next ones lie in host memory and the rest on disk, as
`device_map="auto"` decides; without a GPU every layer lies on disk. Accelerate moves whole modules, and transformers
keeps the experts of a layer in one parameter: a pass moves all experts of a layer, whichever it activates. S-MBU counts
the activated ones, so it shows how far this is from what an offloading engine could do.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import weakref
from collections import Counter

import torch
from accelerate import init_empty_weights
from pydantic import JsonValue
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from moe_cap.measure.engines import quantise
from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.in_process import InProcessEngine, torch_threads
from moe_cap.measure.engines.transformers_session import TransformersSession
from moe_cap.result import EngineRecord

Map = dict[str, str]


def options() -> dict[str, JsonValue]:
    """Compilation is off: `generate` does not compile what is offloaded."""
    cuda = torch.cuda.is_available()
    return {
        "device": "cuda:0" if cuda else "cpu",
        "threads": torch_threads(),
        "cache_implementation": None,
        "compile": False,
        "device_map": "auto" if cuda else "layers on disk",
    }


def layers_on_disk(model: PreTrainedModel) -> Map:
    """Every module that holds tensors, decoder layers on disk and the others on the processor."""
    blocks = set(model._no_split_modules or ())
    layers = [name for name, module in model.named_modules() if type(module).__name__ in blocks]
    inside = tuple(f"{name}." for name in layers)
    kept = [
        name
        for name, module in model.named_modules()
        if _holds_tensors(module) and name not in layers and not name.startswith(inside)
    ]
    return dict.fromkeys(layers, "disk") | dict.fromkeys(kept, "cpu")


def _holds_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


def load_offloaded(spec: LaunchSpec) -> PreTrainedModel:
    """The weights where the map wants them; what Accelerate writes goes with the model."""
    source = spec.files.folder
    device_map: Map | str = "auto"
    if spec.options["device_map"] != "auto":
        with init_empty_weights():
            skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source, trust_remote_code=False))
        device_map = layers_on_disk(skeleton)
    folder = tempfile.mkdtemp(prefix="moe-cap-offload-")
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=quantise.precision_named(spec.precision).dtype,
            device_map=device_map,
            offload_folder=folder,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model.eval()


class OffloadSession(TransformersSession):
    """Generates as its parent does; Accelerate's hooks move the weights."""

    def describe(self) -> EngineRecord:
        """How many modules lie where, as Accelerate dispatched them."""
        told = super().describe()
        places = Counter(str(place) for place in self._model.hf_device_map.values())
        return told.model_copy(update={"arguments": {**told.arguments, "modules_by_place": dict(places)}})

    def stop(self) -> None:
        """Drop the model, and with it what lies on disk."""
        super().stop()
        gc.collect()


ENGINE = InProcessEngine(
    "transformers-offload",
    options,
    session=OffloadSession,
    load=load_offloaded,
    packages=("torch", "transformers", "accelerate"),
)

"""Where an engine ran, by its own record: on which device, spread how, with what outside the devices' memory."""

from __future__ import annotations

from moe_cap.errors import InvalidRunError
from moe_cap.hardware import FoundDevice, Machine
from moe_cap.hardware.detect import CPU_PROBED
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.offerings import ENGINES
from moe_cap.result import EngineRecord

DEVICE_KEYS = ("device", "device_config")
"""Under which engines tell their device: transformers and SGLang, vLLM."""
PLACES_KEY = "modules_by_place"
"""Under which Accelerate's device map is told: how many modules lie where."""
GPU_KINDS = frozenset({"cuda", "hip", "rocm"})
FIRST_KEY, STEP_KEY = "base_gpu_id", "gpu_id_step"
"""Of SGLang (0.5.23, srt/arg_groups/fields/device.py): its first GPU, and how far from each the next one lies."""


def device_of(record: EngineRecord, machine: Machine, asked: str | None) -> str:
    """The device as torch names it, `cpu` or `cuda:1`.

    An engine that does not tell ran on the processor where there is nothing else, or on what the submission names.

    Raises:
        InvalidRunError: the engine does not tell and there is a choice, or it runs on what cannot be probed.
    """
    told = next((str(record.arguments[key]) for key in DEVICE_KEYS if record.arguments.get(key)), None)
    if told is None:
        return _named(machine, asked)
    kind, _, index = told.partition(":")
    if kind == "cpu":
        return "cpu"
    if kind in GPU_KINDS:
        return f"cuda:{index or record.arguments.get(FIRST_KEY) or 0}"
    raise InvalidRunError(f"the engine runs on {told!r}, which cannot be probed: only processors and GPUs of torch can")


def _named(machine: Machine, asked: str | None) -> str:
    if not machine.gpus or asked == CPU_PROBED:
        return "cpu"
    places = [index for index, found in enumerate(machine.gpus) if found.device_id == asked]
    if asked is None or not places:
        here = ", ".join([found.device_id or found.name for found in machine.gpus] + [CPU_PROBED])
        raise InvalidRunError(
            f"the engine does not tell which device it runs on, and this machine has {here}:"
            f" name one of them as hardware{f', not {asked}' if asked else ''}"
        )
    return f"cuda:{places[0]}"


def layout_of(record: EngineRecord) -> Parallelism:
    """How the engine spread the model over its devices.

    Raises:
        InvalidInputError: the sizes that it tells do not fit each other.
    """
    return Parallelism(
        tp=record.tensor_parallel, ep=record.expert_parallel, dp=record.data_parallel, pp=record.pipeline_parallel
    )


def why_no_offload_bytes(record: EngineRecord, *, ours: bool) -> str:
    """Why nobody knows the bytes that a step brings in from outside the devices' memory: there are none, or untold.

    Args:
        record: of the engine; one that was started elsewhere may go by the same name and keep weights anywhere.
        ours: it was started here, by arguments that are known.
    """
    places = record.arguments.get(PLACES_KEY)
    offer = ENGINES.get(record.name or "")
    if isinstance(places, dict):
        told = ", ".join(f"{number} modules on {place}" for place, number in places.items())
        return f"weights are offloaded ({told}), and the engine does not tell the bytes that a step brings in"
    if offer is not None and offer.offloads:
        return "weights are offloaded, and the engine does not tell the bytes that a step brings in"
    if offer is None or not ours or record.arguments.get("given_arguments"):
        return "the engine does not tell whether weights are offloaded"
    return "nothing is offloaded: all weights lie in the device's memory"


def gpus_of(record: EngineRecord, device: str, num_devices: int) -> tuple[int, ...]:
    """Numbers of the GPUs of a run: none for the processor, else those from its first device on."""
    kind, _, index = device.partition(":")
    first, step = int(index or 0), int(str(record.arguments.get(STEP_KEY) or 1))
    return () if kind == "cpu" else tuple(range(first, first + num_devices * step, step))


def why_gpus_unknown(gpus: tuple[int, ...], machine: Machine, *, ours: bool) -> str | None:
    """Why nobody knows on which GPUs a run was; None where it is known, or where it was on none.

    Args:
        gpus: as many as it used.
        machine: on which it was; one with more leaves a choice, that the environment of a server decides too.
        ours: it was started here, in our environment.
    """
    if ours or not gpus or len(machine.gpus) <= len(gpus):
        return None
    return "which of this machine's GPUs the server uses is not known"


def found_behind(device: str, uuid: str | None, machine: Machine) -> FoundDevice:
    """The device of this machine that torch calls `device`, by its UUID; by its kind where all GPUs are alike.

    Raises:
        InvalidRunError: it cannot be told which one it is.
    """
    if device == "cpu":
        return machine.processor
    for found in machine.gpus:
        if uuid is not None and found.uuid == uuid:
            return found
    if len({(found.device_id, found.name) for found in machine.gpus}) == 1:
        return machine.gpus[0]
    here = ", ".join(found.name for found in machine.gpus) or "no GPU"
    raise InvalidRunError(f"the engine runs on {device} ({uuid}), the vendors' libraries see {here}: which is it?")

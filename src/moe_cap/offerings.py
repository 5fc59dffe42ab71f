"""Which engines can be asked for: what the form, the pre-flight and the registry of `moe_cap.measure` read alike.

One line per engine. Nothing here imports an engine; `module` is a path that the measuring floor loads when needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineOffer:
    """One engine, as far as it can be described without importing it.

    Attributes:
        name: what a submission says.
        title: for people.
        module: Python path of the module whose `ENGINE` implements `moe_cap.measure.engines.base.Engine`.
        precisions: weight formats that it can be asked for.
        routing: how the routing of its results is obtained, one sentence.
        load: how requests reach it, one sentence.
        listed: whether a form offers it; the fake engine of the tests is not.
        libraries: packages that a worker must have installed to run it.
        offloads: whether it keeps weights outside the device's memory, so that a model may be larger than that.
        environment: of a server that has one of its own: its folder below `settings.read_engines_folder`.
        as_stored: of the precisions, those that it takes only from a checkpoint stored so; it packs nothing itself.
        reads: endings of the weight files that it can be given.
    """

    name: str
    title: str
    module: str
    precisions: tuple[str, ...]
    routing: str
    load: str
    listed: bool = True
    libraries: tuple[str, ...] = ()
    offloads: bool = False
    environment: str | None = None
    as_stored: tuple[str, ...] = ()
    reads: tuple[str, ...] = (".safetensors",)


QUANTISED = ("fp8", "int8", "int4", "mxfp4", "nvfp4")
"""What checkpoints that are published for servers are stored in."""

ENGINES: dict[str, EngineOffer] = {
    offer.name: offer
    for offer in (
        EngineOffer(
            "transformers", "Transformers", "moe_cap.measure.engines.transformers",
            ("fp32", "bf16", "int8", "int4"),
            "Exact top-k indices of every layer, recorded in a second pass over the same tokens.",
            "Fixed batches that start together (lock step), in process.",
            libraries=("torch", "transformers"),
        ),
        EngineOffer(
            "transformers-static", "Transformers, compiled", "moe_cap.measure.engines.transformers_static",
            ("fp32", "bf16"),
            "Exact top-k indices of every layer, recorded in a second pass over the same tokens.",
            "Fixed batches that start together (lock step), in process, static cache, compiled decode step.",
            libraries=("torch", "transformers"),
        ),
        EngineOffer(
            "transformers-continuous", "Transformers, continuous batching",
            "moe_cap.measure.engines.transformers_continuous",
            ("fp32", "bf16"),
            "Exact top-k indices of every layer, by one more pass over the same tokens with the same weights.",
            "A closed loop over a paged cache: requests join and leave at any step, in process.",
            libraries=("torch", "transformers"),
        ),
        EngineOffer(
            "transformers-offload", "Transformers, offloaded", "moe_cap.measure.engines.transformers_offload",
            ("fp32", "bf16"),
            "Exact top-k indices of every layer, recorded in a second pass over the same tokens.",
            "Fixed batches in lock step, in process; Accelerate brings layers from host memory or disk.",
            libraries=("torch", "transformers", "accelerate"),
            offloads=True,
        ),
        EngineOffer(
            "vllm", "vLLM", "moe_cap.measure.engines.vllm",
            ("fp32", "bf16", *QUANTISED),
            "Recorded by vLLM itself in a second pass over the same tokens, as one prompt each.",
            "Streaming client, closed loop, against its stock server in a process of its own.",
            environment="vllm", as_stored=QUANTISED,
        ),
        EngineOffer(
            "transformers-serve", "Transformers, served", "moe_cap.measure.engines.transformers_serve",
            ("fp32", "bf16"),
            "Exact top-k indices of every layer, by transformers in process on the same tokens.",
            "Streaming client, closed loop, against `transformers serve`, which answers one request at a time.",
            libraries=("torch", "transformers"), environment="transformers-serve",
        ),
        EngineOffer(
            "transformers-serve-continuous", "Transformers, served in continuous batches",
            "moe_cap.measure.engines.transformers_serve_continuous",
            ("fp32", "bf16"),
            "Exact top-k indices of every layer, by transformers in process on the same tokens.",
            "Streaming client, closed loop, against `transformers serve --continuous-batching`.",
            libraries=("torch", "transformers"), environment="transformers-serve",
        ),
        EngineOffer(
            "llama-cpp", "llama.cpp", "moe_cap.measure.engines.llama_cpp",
            ("fp32", "bf16", "int8", "int4"),
            "Recorded in llama.cpp itself in a second pass over the same tokens, as one prompt each.",
            "Streaming client, closed loop, against a stock llama-server in a process of its own.",
            environment="llama-cpp", reads=(".safetensors", ".gguf"),
        ),
        EngineOffer(
            "llama-cpp-offload", "llama.cpp, experts in host memory", "moe_cap.measure.engines.llama_cpp_offload",
            ("fp32", "bf16", "int8", "int4"),
            "Recorded in llama.cpp itself in a second pass over the same tokens, as one prompt each.",
            "Streaming client, closed loop, against a stock llama-server in a process of its own, with --cpu-moe.",
            offloads=True,
            environment="llama-cpp", reads=(".safetensors", ".gguf"),
        ),
        EngineOffer(
            "sglang", "SGLang", "moe_cap.measure.engines.sglang",
            ("fp32", "bf16", *QUANTISED),
            "Returned by SGLang itself in a second pass over the same tokens, as one prompt each.",
            "Streaming client, closed loop, against its stock server in a process of its own.",
            environment="sglang", as_stored=QUANTISED,
        ),
        EngineOffer(
            "tensorrt-llm", "TensorRT-LLM", "moe_cap.measure.engines.tensorrt_llm",
            ("bf16",),
            "Replayed by transformers on the same tokens.",
            "Streaming client, closed loop, against its stock server in a process of its own; never run here.",
            listed=False,
            environment="tensorrt-llm",
        ),
        EngineOffer(
            "ktransformers", "KTransformers", "moe_cap.measure.engines.ktransformers",
            ("bf16",),
            "Returned by its fork of SGLang in a second pass over the same tokens.",
            "Streaming client, closed loop, against its stock server in a process of its own; never run here.",
            listed=False,
            offloads=True,
            environment="ktransformers",
        ),
        EngineOffer(
            "fake", "Fake (tests)", "moe_cap.measure.engines.fake",
            ("fp32", "bf16", "int8", "int4"),
            "A fixed rule of token and layer.",
            "Fixed batches on a clock that only the fake moves.",
            listed=False,
        ),
    )
}  # fmt: skip


ENGINE_TITLES: dict[str, str] = {
    word.casefold(): offer.title for offer in ENGINES.values() for word in (offer.name, offer.title)
}
"""What people read of an engine, by its id or title in lower case: `vllm` of a submission, `vLLM` of a report."""


def listed_engines() -> tuple[EngineOffer, ...]:
    """The engines that a form offers, in order."""
    return tuple(offer for offer in ENGINES.values() if offer.listed)


TASKS: dict[str, str] = {
    "cap_arithmetic": "Two-digit arithmetic",
    "cap_copy": "Copying and reversing words",
    "cap_choice": "Largest or smallest of four",
    "gsm8k": "GSM8K",
}
"""Accuracy tasks that can be asked for, with their titles; `moe_cap.measure.tasks` says how each is scored."""

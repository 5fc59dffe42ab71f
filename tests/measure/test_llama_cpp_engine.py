"""llama.cpp without llama.cpp: how it is started, and what its recorder wrote, by a trace of a real run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moe_cap.errors import EngineStartError, InvalidRunError, SubmissionError
from moe_cap.measure.engines import endpoint_session, gguf_files, llama_cpp, llama_cpp_offload
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.inside.moe_cap_to_gguf import in_bytes, spells_characters, splits_as_gpt2, teach
from moe_cap.measure.engines.llama_cpp import ENGINE, recording
from moe_cap.measure.engines.llama_trace import TracedPass, parse_trace, whole_sequence
from moe_cap.measure.engines.watched import SPECULATIVE
from moe_cap.measure.evaluate import _published
from moe_cap.measure.model_files import ModelFiles
from moe_cap.precision.formats import FP32
from moe_cap.routing import check_routing
from tests.measure.test_launched import answered, unstarted
from tests.measure.test_llama_log import context, drafts
from tests.measure.test_server import requests

FIXTURE = Path(__file__).parent / "fixtures" / "llama-cpp-b11434.jsonl"
LAYERS = (0, 1, 2, 3)
PLACE = ("--host", "127.0.0.1", "--port", "{port}")


@pytest.fixture
def lines() -> list[str]:
    """A prompt of 20 tokens through the shipped model, logical batches of 12, physical ones of 8, and one token more.

    Recorded by tests/engines/record_llama_cpp.py.
    """
    return FIXTURE.read_text().splitlines()


@pytest.fixture
def engines_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MOE_CAP_ENGINES", str(tmp_path))
    yield tmp_path / "llama-cpp"


def install(home: Path) -> None:
    (home / "bin").mkdir(parents=True)
    (home / "bin/llama-server").touch()
    (home / "version").write_text("b1-test\n")


def test_the_published_command_names_the_file_and_no_folder(tiny_files: ModelFiles, tmp_path: Path) -> None:
    session: Any = unstarted(ENGINE, "", tiny_files, tmp_path)
    session._spec = replace(session._spec, argv=("{home}/bin/llama-server", "--model", "/home/bob/x.gguf", *PLACE))
    storage = SimpleNamespace(untold=(), plan=SimpleNamespace(kv=FP32, compute_dtype="fp32"))
    file = SimpleNamespace(file_type="F32", bytes_by_kind=dict)
    vars(session).update(_stored=storage, _file=file)
    published = _published(session.describe(), ()).arguments["command"]
    assert published == ["{home}/bin/llama-server", "--model", "x.gguf", *PLACE]


def started(tiny_files: ModelFiles, tmp_path: Path, *lines: str) -> Any:
    return unstarted(ENGINE, "".join(lines), tiny_files, tmp_path)


def test_passes_are_read_by_the_size_that_the_server_took(tiny_files: ModelFiles, tmp_path: Path) -> None:
    """With `--ubatch-size 128` a prompt of 300 tokens reads the weights three times."""
    session = started(tiny_files, tmp_path, context("n_seq_max", 64), context("n_ubatch", 128))
    assert session.watch() == ByArrivals(128)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), llama_cpp.UNTOLD_SIZE),
        ((context("n_seq_max", 64), context("n_ubatch", 32)), "with 64 slots a pass of next tokens may be cut"),
        ((context("n_seq_max", 64), context("n_ubatch", 512), drafts("draft-simple")), SPECULATIVE),
    ],
    ids=["untold", "more slots than tokens", "speculative"],
)
def test_passes_are_not_told_where_it_is_not_known_how_they_come_about(
    tiny_files: ModelFiles, tmp_path: Path, lines: tuple[str, ...], reason: str
) -> None:
    steps, told = started(tiny_files, tmp_path, *lines).watch().steps((), (), 0)
    assert steps == ()
    assert str(told).startswith(reason)


def test_a_load_fits_into_the_slots_and_tokens_that_the_server_has(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_session, "run_load", answered)
    asked = requests(70, output_tokens=4)
    with pytest.raises(InvalidRunError, match="do not fit into 64 slots and 32768 tokens"):
        started(tiny_files, tmp_path).load(asked, 70)
    larger = started(tiny_files, tmp_path, context("n_seq_max", 128), context("n_ctx", 65536))
    assert len(larger.load(asked, 70).requests) == 70
    smaller = started(tiny_files, tmp_path, context("n_seq_max", 2), context("n_ctx", 4096))
    with pytest.raises(InvalidRunError, match="3 requests of 7 tokens at once do not fit into 2 slots and 4096 tokens"):
        smaller.load(asked, 3)


def test_a_trace_of_a_cut_prompt_is_one_sequence(lines: list[str]) -> None:
    passes = parse_trace(lines, LAYERS)
    assert [len(each.tokens) for each in passes] == [12, 8]
    tokens = [4 + (7 * i) % 90 for i in range(20)]
    whole = whole_sequence(passes, tokens)
    assert whole.experts.shape == (20, 4, 4)
    check_routing(whole.experts, num_experts=16, top_k=4, num_layers=4)
    assert whole.log_probabilities[0] is None
    assert all(value is not None and value < 0 for value in whole.log_probabilities[1:])
    assert len(whole.greedy) == len(whole.greedy_unended) == 20


def test_the_parts_of_a_pass_follow_each_other(lines: list[str]) -> None:
    told = [json.loads(line) for line in lines]
    parts = [
        record["experts"] for record in told[: [("tokens" in r) for r in told].index(True)] if record["layer"] == 2
    ]
    assert [len(part) for part in parts] == [8, 4]
    assert np.array_equal(parse_trace(lines, LAYERS)[0].experts[:, 2], np.concatenate(parts))


def test_a_greedy_choice_differs_without_end_tokens_only_where_it_would_end(lines: list[str]) -> None:
    for each in parse_trace(lines, LAYERS):
        differs = {chosen for chosen, open_ in zip(each.greedy, each.greedy_unended, strict=True) if chosen != open_}
        assert differs <= {2}, "the end token of the shipped model"


def test_a_missing_layer_is_refused(lines: list[str]) -> None:
    kept = [line for line in lines if not line.startswith('{"layer":3')]
    with pytest.raises(InvalidRunError, match="has rows by layer"):
        parse_trace(kept, LAYERS)
    with pytest.raises(InvalidRunError, match="has rows by layer"):
        parse_trace(lines, (0, 1, 2))


def test_a_trace_that_is_cut_off_is_refused(lines: list[str]) -> None:
    with pytest.raises(InvalidRunError, match="cut off"):
        parse_trace([*lines[:-1], lines[-1][:-9]], LAYERS)


def test_a_pass_of_another_prompt_is_refused(lines: list[str]) -> None:
    passes = parse_trace(lines, LAYERS)
    tokens = [token for each in passes for token in each.tokens]
    for wrong in (passes[1:], passes[:1], [*passes, passes[0]]):
        with pytest.raises(InvalidRunError, match="of a prompt of 20 tokens"):
            whole_sequence(wrong, tokens)
    other = TracedPass(
        **{name: getattr(passes[1], name) for name in TracedPass.__dataclass_fields__} | {"sequences": (1,) * 8}
    )
    with pytest.raises(InvalidRunError, match="slots"):
        whole_sequence([passes[0], other], tokens)


def test_the_timed_server_knows_nothing_of_us(tiny_files: ModelFiles) -> None:
    spec = ENGINE.launch_spec(tiny_files, "bf16")
    assert spec.argv[0] == "{home}/bin/llama-server"
    assert f"{{home}}/gguf/{tiny_files.revision}.bf16.gguf" in spec.argv
    assert set(spec.environment) == {"LD_LIBRARY_PATH"}
    assert spec == ENGINE.launch_spec(tiny_files, "bf16")


def test_the_recording_server_differs_by_the_recorder_alone(tiny_files: ModelFiles) -> None:
    timed = ENGINE.launch_spec(tiny_files, "fp32")
    recorded = recording(timed)
    assert recorded.argv == ("env", f"LD_PRELOAD={{home}}/{llama_cpp.RECORDER}", *timed.argv, "--no-warmup")
    assert "LD_PRELOAD" not in recorded.environment, "the guard of the server would load it too"


def test_offload_differs_by_where_the_weights_lie(tiny_files: ModelFiles) -> None:
    plain, offloaded = (each.launch_spec(tiny_files, "bf16") for each in (ENGINE, llama_cpp_offload.ENGINE))
    assert offloaded.argv == (*plain.argv, "--n-gpu-layers", "all", "--cpu-moe")


def test_an_unknown_precision_is_refused_at_its_field(tiny_files: ModelFiles) -> None:
    with pytest.raises(SubmissionError) as refused:
        ENGINE.launch_spec(tiny_files, "fp8")
    assert refused.value.field == "precision"


@pytest.mark.parametrize(
    ("config", "precision", "kind"),
    [
        ({"hidden_size": 2048}, "int4", "q4_k_m"),
        ({"hidden_size": 64}, "int4", "q4_0"),
        ({"text_config": {"hidden_size": 4096}}, "int4", "q4_k_m"),
        ({"hidden_size": 2048}, "int8", "q8_0"),
        ({"hidden_size": 2048}, "bf16", "bf16"),
    ],
)
def test_a_precision_is_the_type_that_people_mean(config: dict[str, Any], precision: str, kind: str) -> None:
    assert gguf_files.gguf_kind(config, precision) == kind


def test_probe_tells_what_is_installed_and_starts_nothing(engines_folder: Path) -> None:
    found = ENGINE.probe()
    assert not found.installed
    assert str(engines_folder) in str(found.reason)
    install(engines_folder)
    assert (ENGINE.probe().installed, ENGINE.probe().version) == (True, "b1-test")
    assert llama_cpp_offload.ENGINE.probe() == ENGINE.probe()


def test_without_a_converter_the_model_does_not_start(
    engines_folder: Path, tiny_files: ModelFiles, tmp_path: Path
) -> None:
    install(engines_folder)
    with pytest.raises(EngineStartError, match="no convert_hf_to_gguf"):
        ENGINE.start(ENGINE.launch_spec(tiny_files, "fp32"), tmp_path / "engine.log")


BYTE_LEVEL = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}}
CHARACTERS = {"model": {"vocab": {"<s>": 0, "a": 1, " ": 2}, "merges": []}, "added_tokens": [{"content": "<s>"}]}


def test_kinds_of_tokenizer_are_told_apart() -> None:
    words = {"model": {"vocab": {"ab": 0}, "merges": []}, "added_tokens": []}
    assert splits_as_gpt2(BYTE_LEVEL)
    assert not splits_as_gpt2(CHARACTERS)
    assert not splits_as_gpt2({"pre_tokenizer": {"type": "Sequence"}})
    assert not splits_as_gpt2(BYTE_LEVEL | {"normalizer": {"type": "NFC"}})
    assert spells_characters(CHARACTERS)
    assert not spells_characters(words)


def test_characters_are_written_in_bytes() -> None:
    assert [in_bytes(text) for text in ("a", " ", "\n", "é")] == ["a", "Ġ", "Ċ", "Ã©"]


class _Converter:
    """Of llama.cpp, as far as it is taught."""

    def get_vocab_base_pre(self, tokenizer: object) -> str:
        if tokenizer == "known":
            return "llama-bpe"
        raise NotImplementedError

    def get_vocab_base(self) -> tuple[list[str], list[int], str]:
        return ["<s>", "a", " "], [3, 1, 1], self.get_vocab_base_pre("unknown")

    def _set_vocab_gpt2(self) -> None:
        self.written = self.get_vocab_base()


def _taught(tokenizer: dict[str, object]) -> type[_Converter]:
    kind = type("Taught", (_Converter,), {})
    teach(kind, tokenizer)
    return kind


def test_the_converter_keeps_what_it_knows_and_refuses_what_nobody_does() -> None:
    kind = _taught({"model": {"vocab": {"ab": 0}, "merges": ["a b"]}, "added_tokens": []})
    assert kind().get_vocab_base_pre("known") == "llama-bpe"
    with pytest.raises(NotImplementedError):
        kind().get_vocab_base_pre("unknown")


def test_a_vocabulary_of_characters_is_written_as_bytes_with_a_merge_that_never_applies() -> None:
    merges: list[str] = []
    one = _taught(CHARACTERS)()
    one.gguf_writer = type("Writer", (), {"add_token_merges": staticmethod(merges.extend)})()
    one._set_vocab_gpt2()
    assert one.written == (["<s>", "a", "Ġ"], [3, 1, 1], "gpt-2")
    assert [len(side) for merge in merges for side in merge.split()] == [5, 5]

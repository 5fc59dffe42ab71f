"""`moe-cap profile` in this process, over stores in a folder of the test, against servers on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moe_cap.cli import main
from moe_cap.measure.load import Rules
from moe_cap.measure.mock_script import Behaviour
from moe_cap.measure.mock_server import MockServer
from moe_cap.measure.profile import system
from moe_cap.result import Result, parse_result
from tests.measure.tiny_models import CONFIGS

PATIENT = Rules(max_lag_s=30, max_beat_lag_s=30)
"""A test's machine is busy: what a late client means is tested where the client is."""


def write_description(folder: Path, family: str = "qwen3_moe") -> Path:
    """Configuration and tokenizer of a model whose weights only the server has; it counts words, as the mock does."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, settings = CONFIGS[family]
    kind(**settings).save_pretrained(folder)
    vocabulary = {"[UNK]": 0, "[END]": 1} | {f"w{index}": index + 2 for index in range(100)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[END]").save_pretrained(folder)
    return folder


@pytest.fixture
def words(tmp_path: Path) -> str:
    return str(write_description(tmp_path / "words-moe"))


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], MockServer]]:
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(MockServer(behaviour))


class Profile:
    """The command, and what it leaves."""

    def __init__(self, output: Path, results: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.output, self.store, self._captured = output, results, captured

    def __call__(self, *arguments: str, code: int = 0) -> str:
        got = main(["profile", "--output-dir", str(self.output), *map(str, arguments)])
        self.out, self.err = self._captured.readouterr()
        assert got == code, self.err
        return self.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self("--json", *arguments, code=code))

    def fails(self, *arguments: str, code: int) -> str:
        """The last line on standard error, after nothing at all on standard output and no result on the disk."""
        assert self(*arguments, code=code) == ""
        assert not list(self.output.rglob("result.json"))
        assert not list(self.output.glob("table.csv"))
        assert not list(self.store.rglob("*.json"))
        last = self.err.splitlines()[-1]
        assert last.startswith("moe-cap: ")
        return last

    def results(self) -> list[Result]:
        return [parse_result(path.read_bytes()) for path in sorted(self.output.glob("*/result.json"))]


@pytest.fixture
def profile(
    tmp_path: Path, quick_probe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Profile:
    monkeypatch.setattr(system, "RULES", PATIENT)
    for name in ("RESULTS_REPO", "QUEUE_REPO", "HF_TOKEN", "MOE_CAP_API_KEY", "MOE_CAP_MACHINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOE_CAP_HOME", str(quick_probe))
    monkeypatch.setenv("MOE_CAP_RESULTS", str(tmp_path / "results"))
    return Profile(tmp_path / "out", tmp_path / "results", capsys)

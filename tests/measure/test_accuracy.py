"""Scores through our engine against lm-eval run alone on the same model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from moe_cap.errors import AccuracyError, EngineCrashedError
from moe_cap.measure import accuracy
from moe_cap.measure.accuracy import EngineModel, measure_accuracy, no_answer_rate, sha256_of
from moe_cap.measure.engines import quantise
from moe_cap.measure.engines.fake import ENGINE as FAKE
from moe_cap.measure.engines.transformers import ENGINE
from moe_cap.measure.model_files import find_model
from moe_cap.measure.tasks import TASKS, load_task
from moe_cap.result import AccuracyRecord
from moe_cap.settings import CHECKOUT
from moe_cap.submission import Submission

LIMIT, BATCH = 40, 16

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # lm-eval's and datasets' own
]


@pytest.fixture(scope="module")
def shipped() -> Any:
    return find_model(Submission(model=str(CHECKOUT / "assets" / "cap-tiny-moe")))


@pytest.fixture(scope="module", params=["fp32", "int4"])
def pair(request: pytest.FixtureRequest, shipped: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, HFLM]:
    """Our session, and lm-eval's own engine, in the same precision; loaded one without the other."""
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    session = ENGINE.start(ENGINE.launch_spec(shipped, request.param), log)
    alone = quantise.load_model(shipped.folder, request.param)
    tokenizer = AutoTokenizer.from_pretrained(shipped.folder)
    return session, HFLM(pretrained=alone, tokenizer=tokenizer, batch_size=BATCH)


@pytest.mark.parametrize("name", ["cap_arithmetic", "cap_copy", "cap_choice"])
def test_a_score_is_what_lm_eval_gives_alone(pair: tuple[Any, HFLM], name: str, tmp_path: Path) -> None:
    session, alone = pair
    record = measure_accuracy(
        session, name, limit=LIMIT, batch_size=BATCH, data_dir=None, output=tmp_path, report=lambda share: None
    )
    manager = TaskManager(include_defaults=False)
    expected = lm_eval.simple_evaluate(model=alone, tasks=[load_task(name)], limit=LIMIT, task_manager=manager)
    scores = expected["results"][name]
    assert record.value == scores[TASKS[name].metric_key]
    assert record.stderr == pytest.approx(scores[TASKS[name].stderr_key])
    assert record.num_samples == LIMIT
    assert record.prompt_sha256 == sha256_of(sample["arguments"] for sample in expected["samples"][name])


def _texts(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, index) for index, each in enumerate(arguments)]


def test_likelihoods_are_those_of_lm_eval(pair: tuple[Any, HFLM]) -> None:
    session, alone = pair
    asked = _texts("loglikelihood", ("12+34=", "046"), ("", "copy abc>"), ("max A1 B2>", " B"), ("copy ", "abc>abc"))
    ours = EngineModel(session, BATCH, lambda share: None).loglikelihood(asked)
    theirs = alone.loglikelihood(asked, disable_tqdm=True)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], rel=1e-2)


def test_rolling_likelihoods_are_those_of_lm_eval(pair: tuple[Any, HFLM], monkeypatch: pytest.MonkeyPatch) -> None:
    session, alone = pair
    monkeypatch.setattr(type(session), "max_tokens", 16)
    monkeypatch.setattr(alone, "_max_length", 16)
    asked = _texts("loglikelihood_rolling", ("copy abcdef>abcdef\nreverse abc>cba\n12+34=046",), ("copy a>a",))
    ours = EngineModel(session, BATCH, lambda share: None).loglikelihood_rolling(asked)
    assert ours == pytest.approx(alone.loglikelihood_rolling(asked, disable_tqdm=True), rel=1e-2)


def test_answers_are_those_of_lm_eval(pair: tuple[Any, HFLM]) -> None:
    session, alone = pair
    settings = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    asked = _texts("generate_until", *((text, settings) for text in ("12+34=", "copy hello>", "reverse xyz>", "a")))
    assert EngineModel(session, 2, lambda share: None).generate_until(asked) == alone.generate_until(
        asked, disable_tqdm=True
    )


@pytest.fixture
def fake(tiny_files: Any, tmp_path: Path) -> Any:
    return FAKE.start(FAKE.launch_spec(tiny_files, "bf16"), tmp_path / "log")


def test_progress_reaches_the_end(fake: Any, tmp_path: Path) -> None:
    shares: list[float] = []
    measure_accuracy(fake, "cap_copy", limit=10, batch_size=4, data_dir=None, output=tmp_path, report=shares.append)
    assert shares == [0.4, 0.8, 1.0]


def test_an_unknown_task_is_an_error_that_names_the_known_ones(fake: Any, tmp_path: Path) -> None:
    with pytest.raises(AccuracyError, match="cap_copy"):
        measure_accuracy(fake, "nope", limit=1, batch_size=1, data_dir=None, output=tmp_path, report=lambda share: None)


def test_a_scorer_that_cannot_be_imported_is_an_error(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(**_: Any) -> None:
        raise ModuleNotFoundError("No module named 'rouge'")

    monkeypatch.setattr(lm_eval, "simple_evaluate", broken)
    with pytest.raises(AccuracyError, match="rouge"):
        measure_accuracy(
            fake, "cap_copy", limit=1, batch_size=1, data_dir=None, output=tmp_path, report=lambda share: None
        )


def test_an_engine_that_dies_while_scoring_is_told_apart(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash(*_: Any, **__: Any) -> list[str]:
        raise EngineCrashedError("gone")

    monkeypatch.setattr(fake, "answer", crash)
    with pytest.raises(EngineCrashedError):
        measure_accuracy(
            fake, "cap_copy", limit=1, batch_size=1, data_dir=None, output=tmp_path, report=lambda share: None
        )


def test_a_task_without_its_metric_is_an_error(fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = TASKS["cap_copy"]
    other = type(spec)(**{**{name: getattr(spec, name) for name in spec.__slots__}, "metric": "rouge"})
    monkeypatch.setitem(accuracy.TASKS, "cap_copy", other)
    with pytest.raises(AccuracyError, match="without rouge"):
        measure_accuracy(
            fake, "cap_copy", limit=2, batch_size=1, data_dir=None, output=tmp_path, report=lambda share: None
        )


def test_sampled_answers_are_refused(fake: Any) -> None:
    settings = {"until": ["\n"], "do_sample": True, "temperature": 0.7}
    with pytest.raises(AccuracyError, match="greedily"):
        EngineModel(fake, 1, lambda share: None).generate_until(_texts("generate_until", ("a", settings)))


def test_answers_that_leave_no_room_for_the_question_are_refused(fake: Any) -> None:
    settings = {"until": ["\n"], "max_gen_toks": fake.max_tokens}
    with pytest.raises(AccuracyError, match="in all"):
        EngineModel(fake, 1, lambda share: None).generate_until(_texts("generate_until", ("a", settings)))


@pytest.mark.parametrize(
    ("answers", "rate"), [(["7", "[invalid]"], 0.5), (["", " \n"], 1.0), (["a", "b"], 0.0), ([("x", 1)], None)]
)
def test_answers_without_an_answer_are_counted(answers: list[Any], rate: float | None) -> None:
    assert no_answer_rate([{"filtered_resps": [answer]} for answer in answers]) == rate


def test_gsm8k_runs_from_a_local_folder(fake: Any, tmp_path: Path) -> None:
    folder = _shared_gsm8k()
    record = measure_accuracy(
        fake, "gsm8k", limit=3, batch_size=3, data_dir=folder, output=tmp_path, report=lambda share: None
    )
    assert (record.num_samples, record.num_fewshot, record.filter) == (3, 5, "flexible-extract")
    assert record.no_answer_rate == 1.0
    assert record.value == 0.0


def _shared_gsm8k() -> Path:
    import os

    folder = Path(os.environ.get("MOE_CAP_SHARED", CHECKOUT.parent / "shared")) / "data" / "gsm8k"
    if not folder.is_dir():
        pytest.skip("no shared data: set MOE_CAP_SHARED to the folder that holds data/gsm8k")
    return folder


@pytest.mark.parametrize("task", ["cap_copy", "cap_choice"])
def test_every_answer_is_kept_with_its_score(fake: Any, task: str, tmp_path: Path) -> None:
    record = measure_accuracy(
        fake, task, limit=4, batch_size=4, data_dir=None, output=tmp_path, report=lambda share: None
    )
    content = (tmp_path / f"samples-{task}.jsonl").read_bytes()
    samples = [json.loads(line) for line in content.splitlines()]
    assert record.samples_sha256 == hashlib.sha256(content).hexdigest()
    assert [sample["doc_id"] for sample in samples] == [0, 1, 2, 3]
    assert len({sample["prompt_sha256"] for sample in samples}) == 4
    assert all(sample["answer"] and sample["extracted"] for sample in samples)
    assert record.value == sum(sample["score"] for sample in samples) / 4


def test_a_record_from_before_the_samples_keeps_its_bytes() -> None:
    record = AccuracyRecord(task="gsm8k", metric="exact_match", value=0.5)
    assert "samples_sha256" not in record.model_dump(mode="json")
    assert AccuracyRecord.model_validate_json(record.model_dump_json()) == record

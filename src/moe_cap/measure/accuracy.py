"""Accuracy by lm-eval, through the very engine and settings that were timed.

`EngineModel` is a language model to lm-eval whose every answer comes from the running session. Prompts, few-shot
examples, extraction and scoring stay lm-eval's own, so a score is what lm-eval gives when it is run alone on the same
model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import Collator, handle_stop_sequences, normalize_gen_kwargs
from lm_eval.tasks import TaskManager

from moe_cap.errors import AccuracyError, MeasurementError
from moe_cap.measure.engines.base import Continuation, Score, Session
from moe_cap.measure.tasks import TASKS, TaskSpec, load_task
from moe_cap.result import AccuracyRecord

MAX_ANSWER_TOKENS = 256
"""Where a task sets no limit; lm-eval's own default."""
NO_ANSWER = "[invalid]"
"""What lm-eval's extraction filters leave when they find nothing."""

Encoded = tuple[tuple[str, str] | None, list[int], list[int]]


class EngineModel(TemplateLM):  # type: ignore[misc]  # lm_eval is untyped
    """A session as lm-eval sees it.

    Args:
        session: answers and scores.
        batch_size: how many requests it gets at once.
        report: told the share of requests done, 0..1.
    """

    def __init__(self, session: Session, batch_size: int, report: Callable[[float], None]) -> None:
        super().__init__()
        self._session = session
        self._batch_size = batch_size
        self._report = report

    @property
    def eot_token_id(self) -> int:
        """Ends a text."""
        return self._session.tokenizer.end_token

    @property
    def prefix_token_id(self) -> int:
        """Stands before a text without context."""
        return self._session.tokenizer.prefix_token

    @property
    def tokenizer_name(self) -> str:
        """Names the vocabulary."""
        return self._session.tokenizer.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids."""
        return self._session.tokenizer.encode(string, special_tokens=add_special_tokens)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability of each continuation after its context; without a bar in the log."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Longest first, so that running out of memory happens at once or not at all."""
        collator = Collator(requests, sort_fn=lambda request: (-len(request[1] + request[2]), request[1] + request[2]))
        scores: list[Score] = []
        for chunk in collator.get_batched(n=self._batch_size):
            scores += self._session.score([Continuation(tuple(before), tuple(after)) for _, before, after in chunk])
            self._report(len(scores) / len(requests))
        ordered: list[Score] = collator.get_original(scores)
        return [(score.log_probability, score.is_greedy) for score in ordered]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, cut into windows that fill the model's context; each token counts once."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._session.max_tokens,
                context_len=1,
            )
            encoded: list[Encoded] = [(None, *utils.make_disjoint_window(window)) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(encoded)))
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers up to a stop text."""
        collator = Collator(
            [request.args for request in requests],
            sort_fn=lambda arguments: (-len(self.tok_encode(arguments[0])), arguments[0]),
            group_by="gen_kwargs",
            group_fn=lambda arguments: arguments[1],
        )
        answers: list[str] = []
        for chunk in collator.get_batched(n=self._batch_size):
            answers += self._answer([text for text, _ in chunk], chunk[0][1])
            self._report(len(answers) / len(requests))
        ordered: list[str] = collator.get_original(answers)
        return ordered

    def _answer(self, texts: Sequence[str], asked: dict[str, Any]) -> list[str]:
        settings = normalize_gen_kwargs(asked, MAX_ANSWER_TOKENS)
        if settings.get("do_sample"):
            raise AccuracyError(
                "the task samples its answers; engines are asked greedily, so that scores can be repeated"
            )
        tokenizer = self._session.tokenizer
        stop = handle_stop_sequences(
            settings["until"], eos=tokenizer.decode([tokenizer.end_token], special_tokens=True)
        )
        limit = int(settings["max_gen_toks"])
        room = self._session.max_tokens - limit
        if room <= 0:
            raise AccuracyError(
                f"the task wants {limit} tokens per answer, the model takes {self._session.max_tokens} in all"
            )
        prompts = [tokenizer.encode(text)[-room:] for text in texts]
        return self._session.answer(prompts, stop=[text for text in stop if text], max_tokens=limit)


def measure_accuracy(
    session: Session,
    name: str,
    *,
    limit: int | None,
    batch_size: int,
    data_dir: Path | None,
    output: Path,
    report: Callable[[float], None],
) -> AccuracyRecord:
    """Score one task and keep every answer in `samples-<task>.jsonl`.

    Args:
        session: the running engine.
        name: a key of `moe_cap.measure.tasks.TASKS`.
        limit: problems, from the first on; None takes all.
        batch_size: requests that the engine gets at once.
        data_dir: where the problems lie, instead of the Hub.
        output: folder of the samples.
        report: told the share done, 0..1.

    Raises:
        AccuracyError: no such task, its problems cannot be had, or it cannot be scored (a scorer that cannot be
            imported is an error, never a score of 0).
    """
    spec = TASKS.get(name)
    if spec is None:
        raise AccuracyError(f"no task {name!r}; there are: {', '.join(TASKS)}")
    try:
        task = load_task(name, data_dir=data_dir)
        model = EngineModel(session, batch_size, report)
        # The default manager reads all 14,000 task files of lm-eval, although the task is loaded already.
        manager = TaskManager(include_defaults=False)
        outcome = lm_eval.simple_evaluate(model=model, tasks=[task], limit=limit, task_manager=manager)
    except MeasurementError:
        raise
    except (ImportError, LookupError, TypeError, ValueError, AssertionError, OSError, RuntimeError) as error:
        raise AccuracyError(f"{spec.title} could not be scored: {type(error).__name__}: {error}") from error
    return _record(spec, outcome, output)


def _record(spec: TaskSpec, outcome: dict[str, Any], output: Path) -> AccuracyRecord:
    scores = outcome["results"][spec.name]
    samples = [sample for sample in outcome["samples"][spec.name] if sample["filter"] == spec.filter]
    if spec.metric_key not in scores or not samples:
        raise AccuracyError(
            f"lm-eval scored {spec.name} without {spec.metric_key}: it has {', '.join(map(str, scores))}"
        )
    stderr = scores.get(spec.stderr_key)
    return AccuracyRecord(
        task=spec.name,
        metric=spec.metric,
        value=float(scores[spec.metric_key]),
        stderr=float(stderr) if isinstance(stderr, float) else None,
        num_samples=len(samples),
        num_fewshot=int(outcome["n-shot"][spec.name]),
        no_answer_rate=no_answer_rate(samples),
        task_version=str(outcome["versions"][spec.name]),
        dataset_revision=sha256_of(sample["doc"] for sample in samples),
        prompt_sha256=sha256_of(sample["arguments"] for sample in samples),
        harness=f"lm_eval {version('lm_eval')}",
        filter=spec.filter,
        samples_sha256=write_samples(output / f"samples-{spec.name}.jsonl", spec, samples),
    )


def write_samples(path: Path, spec: TaskSpec, samples: Sequence[dict[str, Any]]) -> str:
    """One JSON object per problem, in order; sha256 of the file.

    `answer` is what the engine gave (a text, or log-probability and greediness of each choice), `extracted` what the
    task's filter made of it, `score` what the metric gave for that.
    """
    lines = [
        {
            "doc_id": sample["doc_id"],
            "prompt_sha256": sha256_of([sample["arguments"]]),
            "target": sample["target"],
            "answer": sample["resps"],
            "extracted": sample["filtered_resps"],
            "score": sample[spec.metric],
        }
        for sample in samples
    ]
    content = "".join(f"{json.dumps(line, sort_keys=True, default=str)}\n" for line in lines).encode()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def no_answer_rate(samples: Sequence[dict[str, Any]]) -> float | None:
    """Share of generated answers from which nothing could be extracted; None where options are scored instead."""
    answers = [sample["filtered_resps"][0] for sample in samples]
    if not all(isinstance(answer, str) for answer in answers):
        return None
    return sum(answer.strip() in {"", NO_ANSWER} for answer in answers) / len(answers)


def sha256_of(parts: Iterable[Any]) -> str:
    """Hash over JSON values in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()

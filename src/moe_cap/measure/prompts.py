"""Prompts that are text, not noise, because random tokens skew the routing: of an exact length, or as long as they are.

The text is the solved problems of the submission's first task, or, where no task was asked for, the worked examples of
BIG-Bench Hard (Suzgun et al., arXiv 2210.09261) that lm-eval ships.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import lm_eval.tasks
import yaml

from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.base import Request, Tokenizer
from moe_cap.measure.prompt_cache import Opening
from moe_cap.measure.tasks import load_task
from moe_cap.submission import Submission

EXAMPLES = Path(lm_eval.tasks.__file__).parent / "bbh" / "cot_fewshot"
Item = TypeVar("Item")
Before = Callable[[str], str]
"""What stands before the text of a request's prompt, by the request's id."""
CHARACTERS_PER_TOKEN = 5
"""First guess of how much text a prompt needs; it is doubled until the tokens suffice."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Pieces of text that prompts are made of, and what they are, for the record.

    Attributes:
        problems: questions with their answers, where the text is made of such.
        dataset: their name.
    """

    texts: tuple[str, ...]
    description: str
    problems: tuple[tuple[str, str], ...] = ()
    dataset: str | None = None


def _passages(problems: tuple[tuple[str, str], ...], dataset: str, description: str) -> Passages:
    return Passages(tuple(question + answer for question, answer in problems), description, problems, dataset)


def worked_examples() -> Passages:
    """Questions with their step-by-step answers, as people put them to models."""
    problems = []
    for path in sorted(EXAMPLES.glob("[a-z]*.yaml")):
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        samples = body["fewshot_config"]["samples"]
        problems += [(f"Q: {sample['input']}\nA: Let's think step by step.\n", sample["target"]) for sample in samples]
    return _passages(tuple(problems), "bbh", "worked examples of BIG-Bench Hard")


def solved_problems(task: str, data_dir: Path | None) -> Passages:
    """Every problem of a task with its answer."""
    loaded = load_task(task, data_dir=data_dir)
    problems = tuple(_solved(loaded, document) for document in loaded.eval_docs)
    return _passages(problems, task, f"problems of {task} with their answers")


def _solved(task: object, document: dict[str, object]) -> tuple[str, str]:
    question = task.doc_to_text(document)  # type: ignore[attr-defined]  # lm_eval is untyped
    answer = task.doc_to_target(document)  # type: ignore[attr-defined]
    choices = task.doc_to_choice(document) if isinstance(answer, int) else None  # type: ignore[attr-defined]
    return question, f"{choices[answer] if choices else answer}"


def build_requests(
    passages: Passages,
    tokenizer: Tokenizer,
    *,
    name: str,
    number: int,
    input_tokens: int,
    output_tokens: int,
    seed: int,
    before: Before = lambda _id: "",
) -> tuple[Request, ...]:
    """Different requests of one exact shape; the same arguments give the same requests.

    Raises:
        InvalidRunError: the passages hold no text.
    """
    if not any(passages.texts):
        raise InvalidRunError("there is no text to make prompts of")
    rng = random.Random(f"{seed}/{name}")  # noqa: S311 reproducible prompts, no secret
    first = rng.sample(passages.texts, len(passages.texts))

    def request(index: int) -> Request:
        text = before(f"{name}-{index}") + _some_lines_on(first[index % len(first)], rng)
        return Request(f"{name}-{index}", _prompt(text, passages, tokenizer, input_tokens, rng), output_tokens)

    return tuple(map(request, range(number)))


def build_dataset_requests(
    passages: Passages,
    tokenizer: Tokenizer,
    *,
    name: str,
    number: int,
    input_tokens: int,
    output_tokens: int,
    seed: int,
    before: Before = lambda _id: "",
) -> tuple[Request, ...]:
    """Different requests as long as the problems are, with answers as long as theirs; some come twice if need be.

    Args:
        passages: whose problems they are.
        tokenizer: of the model.
        name: prefix of every request's id.
        number: how many.
        input_tokens: of the longest problem; longer ones are left out.
        output_tokens: the longest answer; longer ones end there. The shortest has two tokens, for a time per token.
        seed: decides their order, with the name.
        before: comes on top of a problem's length.

    Raises:
        InvalidRunError: no problem is as short.
    """
    fitting = []
    for question, answer in passages.problems:
        prompt = tokenizer.encode(question)
        if 0 < len(prompt) <= input_tokens:
            told = len(tokenizer.encode(answer, special_tokens=False))
            fitting.append((question, max(2, min(told, output_tokens))))
    if not fitting:
        raise InvalidRunError(f"no problem of {passages.dataset} has {input_tokens} tokens or fewer: allow longer ones")
    rng = random.Random(f"{seed}/{name}")  # noqa: S311 reproducible prompts, no secret
    drawn = islice(_endless(fitting, rng), number)

    def request(index: int, question: str, length: int) -> Request:
        return Request(f"{name}-{index}", tuple(tokenizer.encode(before(f"{name}-{index}") + question)), length)

    return tuple(request(index, question, length) for index, (question, length) in enumerate(drawn))


def _some_lines_on(text: str, rng: random.Random) -> str:
    """From some line of it on, so that requests begin differently."""
    lines = text.split("\n")
    return "\n".join(lines[rng.randrange(len(lines)) :])


def _prompt(text: str, passages: Passages, tokenizer: Tokenizer, length: int, rng: random.Random) -> tuple[int, ...]:
    """So many tokens of a text, passages in random order behind it."""
    more = _endless(passages.texts, rng)
    enough = CHARACTERS_PER_TOKEN * length
    while True:
        while len(text) < enough:
            text += "\n" + next(more)
        tokens = tokenizer.encode(text)
        if len(tokens) >= length:
            return tuple(tokens[:length])
        enough *= 2


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a submission.

    Attributes:
        passages: what they are made of.
        tokenizer: of the model.
        opening: what each begins with.
    """

    asked: Submission
    passages: Passages
    tokenizer: Tokenizer
    opening: Opening

    def draw(self, name: str, number: int, attempt: int = 0) -> tuple[Request, ...]:
        """Requests of one pass; another name gives other texts, another attempt the same ones behind other openings.

        Raises:
            InvalidRunError: there is no text, or no problem as short as was asked for.
        """
        asked = self.asked
        own = asked.lengths == "dataset"
        build = build_dataset_requests if own else build_requests
        return build(
            self.passages,
            self.tokenizer,
            name=name,
            number=number,
            input_tokens=asked.input_tokens - self.opening.tokens if own else asked.input_tokens,
            output_tokens=asked.output_tokens,
            seed=asked.seed,
            before=partial(self.opening.before, attempt=attempt),
        )

    def told(self) -> Mapping[str, Any]:
        """What the result's `Load` says of them."""
        asked, text, opening = self.asked, self.passages, self.opening.told
        if asked.lengths == "dataset":
            limits = f"prompts up to {asked.input_tokens}, answers up to {asked.output_tokens} tokens"
            told = f"{text.description}, each as long as it is{opening}, {limits}, in random order, seed {asked.seed}"
            return {"dataset": text.dataset, "prompts": told}
        told = f"{text.description}, in random order, cut to {asked.input_tokens} tokens, seed {asked.seed}{opening}"
        return {"input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens, "prompts": told}


def _endless(items: Sequence[Item], rng: random.Random) -> Iterator[Item]:
    while True:
        yield from rng.sample(items, len(items))

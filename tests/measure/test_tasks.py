"""The accuracy tasks load without a network, ask what was held out, and know the right answers."""

import json
import random
import re
from pathlib import Path

import datasets
import pytest

from moe_cap.errors import AccuracyError
from moe_cap.measure.tasks import FOLDER, TASKS, load_task
from training.problems import ASKED, DRAW, HELD_OUT_SHARE, held_out_problems, training_problems
from training.train import STAGES
from training.write_held_out import PROBLEMS_PER_TASK, SEED

pytestmark = pytest.mark.model

HARDEST = STAGES[-1].difficulty
OURS = {"arithmetic": "cap_arithmetic", "copy": "cap_copy", "choice": "cap_choice"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def gsm8k_folder(tmp_path: Path) -> Path:
    for split, count in (("train_first", 8), ("test", 3)):
        lines = [json.dumps({"question": f"{split} {i}?", "answer": f"It is {i}.\n#### 1,0{i}0"}) for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def asked(task: str) -> list[dict[str, str]]:
    text = (FOLDER / f"cap_{task}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def essence(prompt: str) -> tuple[object, ...]:
    """What a question is about, by its text alone, without the order of operands or options and the verb of a word."""
    numbers = sorted(int(number) for number in re.findall(r"\d+", prompt))
    words = [word for word in re.findall(r"[a-z]+", prompt) if word not in {"copy", "reverse"}]
    return (*re.findall(r"[-+]", prompt), *words, *numbers)


def solve(prompt: str) -> str:
    """The answer, found without the code that made the question."""
    if sum_ := re.fullmatch(r"(\d+)([-+])(\d+)=", prompt):
        a, b = int(sum_[1]), int(sum_[3])
        return f"{a + b if sum_[2] == '+' else a - b:0{len(sum_[1]) + 1}}"
    if word := re.fullmatch(r"(copy|reverse) ([a-z]+)>", prompt):
        return word[2] if word[1] == "copy" else "".join(reversed(word[2]))
    options = {int(number): letter for letter, number in re.findall(r"([A-D])(\d+)", prompt)}
    assert len(options) == 4
    return options[max(options) if prompt.startswith("max ") else min(options)]


@pytest.mark.parametrize("task", OURS)
def test_answer_of_every_problem_is_right(task: str) -> None:
    assert all(solve(line["prompt"]) == line["answer"] for line in asked(task))


@pytest.mark.parametrize("task", OURS)
def test_held_out_problems_never_occur_in_training(task: str) -> None:
    held_out = {essence(line["prompt"]) for line in asked(task)}
    stream = training_problems(task, HARDEST, random.Random(7))
    assert not any(essence(next(stream).prompt) in held_out for _ in range(50_000))


def test_every_held_out_sum_would_be_met_soon_if_it_were_not_held_out() -> None:
    """The check above can fail: without the filter the same number of draws meets most of the sums."""
    held_out = {essence(line["prompt"]) for line in asked("arithmetic")}
    rng = random.Random(7)
    met = {essence(DRAW["arithmetic"](rng, HARDEST).prompt) for _ in range(50_000)}
    assert len(held_out & met) > 0.5 * len(held_out)


@pytest.mark.parametrize("task", OURS)
def test_about_a_tenth_is_held_out(task: str) -> None:
    rng = random.Random(3)
    share = sum(DRAW[task](rng, HARDEST).held_out for _ in range(20_000)) / 20_000
    assert share == pytest.approx(HELD_OUT_SHARE, abs=0.02)


@pytest.mark.parametrize("task", OURS)
def test_shipped_problems_are_what_the_script_writes(task: str) -> None:
    problems = held_out_problems(task, ASKED, PROBLEMS_PER_TASK, random.Random(SEED))
    assert asked(task) == [{"prompt": problem.prompt, "answer": problem.answer} for problem in problems]
    assert len({problem.key for problem in problems}) == PROBLEMS_PER_TASK


@pytest.mark.parametrize("name", OURS.values())
def test_task_loads_offline_and_asks_the_shipped_problems(name: str) -> None:
    task = load_task(name)
    documents = list(task.test_docs())
    assert len(documents) == PROBLEMS_PER_TASK
    assert task.doc_to_text(documents[0]) == documents[0]["prompt"]


def test_longest_word_and_its_end_fit_into_the_answer() -> None:
    task = load_task("cap_copy")
    longest = max(len(document["answer"]) for document in task.test_docs())
    assert longest < task.config.generation_kwargs["max_gen_toks"]


def test_gsm8k_reads_a_local_folder_and_keeps_upstreams_prompt(gsm8k_folder: Path) -> None:
    task = load_task("gsm8k", data_dir=gsm8k_folder)
    documents = list(task.test_docs())
    prompt = task.fewshot_context(documents[0], num_fewshot=TASKS["gsm8k"].num_fewshot)
    assert task.config.num_fewshot == TASKS["gsm8k"].num_fewshot
    assert prompt.count("Question: train_first") == 5
    assert prompt.endswith("Question: test 0?\nAnswer:")


@pytest.mark.parametrize(
    ("text", "right"), [("So it is $1,000.", 1.0), ("1000", 1.0), ("#### 1,001", 0.0), ("none", 0.0)]
)
def test_gsm8k_keeps_upstreams_extraction(text: str, right: float, gsm8k_folder: Path) -> None:
    task = load_task("gsm8k", data_dir=gsm8k_folder)
    task.build_all_requests(limit=1)
    for instance in task.instances:
        instance.resps.append(text)
    task.apply_filters()
    answer = task.instances[0].filtered_resps[TASKS["gsm8k"].filter]
    assert task.process_results(task.instances[0].doc, [answer])[TASKS["gsm8k"].metric] == right


def test_problems_that_cannot_be_had_say_where_they_may_be_put(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(AccuracyError, match=r"put train\*.jsonl and test\*.jsonl into the folder problems/gsm8k"):
        load_task("gsm8k")


def test_unknown_task_is_refused_by_name() -> None:
    with pytest.raises(AccuracyError, match="cap_poetry"):
        load_task("cap_poetry")


def test_folder_without_the_problems_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccuracyError, match="train"):
        load_task("gsm8k", data_dir=tmp_path)

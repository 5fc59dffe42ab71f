"""The accuracy tasks: what each is called, how it is scored, and how lm-eval loads it.

A task of ours is a YAML file in this folder with its problems beside it, and a line in `TASKS`. Stock lm-eval finds
them too: `lm_eval --include_path <this folder> --tasks cap_arithmetic`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lm_eval.tasks
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from moe_cap.errors import AccuracyError

FOLDER = Path(__file__).parent
UPSTREAM_FOLDER = Path(lm_eval.tasks.__file__).parent


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One accuracy task.

    Attributes:
        name: the name that lm-eval knows it by.
        title: for people.
        yaml: its definition.
        metric: the metric that is its score.
        filter: the lm-eval filter whose answer is scored.
        num_fewshot: solved examples in the prompt.
        higher_is_better: of the metric.
        license: of its problems.
        problem_files: files of a data folder that hold its splits, for a task that can be read from one.
    """

    name: str
    title: str
    yaml: Path
    metric: str
    filter: str
    num_fewshot: int
    higher_is_better: bool
    license: str
    problem_files: tuple[tuple[str, str], ...] = ()

    @property
    def metric_key(self) -> str:
        """Where the score stands in lm-eval's results of this task."""
        return f"{self.metric},{self.filter}"

    @property
    def stderr_key(self) -> str:
        """Where the standard error of the score stands."""
        return f"{self.metric}_stderr,{self.filter}"


def _ours(name: str, title: str, metric: str) -> TaskSpec:
    yaml = FOLDER / f"{name}.yaml"
    return TaskSpec(name, title, yaml, metric, "none", num_fewshot=0, higher_is_better=True, license="apache-2.0")


_ALL = (
    _ours("cap_arithmetic", "Two-digit arithmetic", "exact_match"),
    _ours("cap_copy", "Copying and reversing words", "exact_match"),
    _ours("cap_choice", "Largest or smallest of four", "acc"),
    TaskSpec(
        "gsm8k",
        "GSM8K",
        UPSTREAM_FOLDER / "gsm8k" / "gsm8k.yaml",
        "exact_match",
        "flexible-extract",
        num_fewshot=5,
        higher_is_better=True,
        license="mit",
        problem_files=(("train", "train*.jsonl"), ("test", "test*.jsonl")),
    ),
)
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _ALL}


def load_task(name: str, *, data_dir: Path | None = None) -> Task:
    """The task of that name, ready for lm-eval's `simple_evaluate(tasks=[...])`.

    Args:
        name: a key of `TASKS`.
        data_dir: a folder to read the problems from instead of the Hub: `train*.jsonl` and `test*.jsonl` of GSM8K.
            Prompt, few-shot examples and extraction stay lm-eval's own. Tasks that carry their problems ignore it.

    Raises:
        AccuracyError: no such task, its problems cannot be had, or the folder lacks a file of it.
    """
    if name not in TASKS:
        raise AccuracyError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    spec = TASKS[name]
    wanted: dict[str, object] = {"task": name}
    if data_dir is not None and spec.problem_files:
        files = _problem_files(spec, data_dir)
        wanted |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    manager = TaskManager(include_path=str(spec.yaml.parent), include_defaults=False)
    # A member of a group is lm-eval's own way to load a task file with some of its keys replaced.
    try:
        return manager.load([{"group": "moe_cap", "task": [wanted]}])["tasks"][name]
    except (OSError, ValueError) as error:
        if not spec.problem_files:
            raise
        patterns = " and ".join(pattern for _, pattern in spec.problem_files)
        raise AccuracyError(
            f"the problems of {spec.title} cannot be had: {error}; without the Hub, put {patterns} into the folder "
            f"problems/{name} of MOE_CAP_HOME"
        ) from error


def _problem_files(spec: TaskSpec, data_dir: Path) -> dict[str, str]:
    """The file of each split: the first in the folder that matches its pattern."""
    files = {}
    for split, pattern in spec.problem_files:
        found = sorted(data_dir.glob(pattern))
        if not found:
            raise AccuracyError(f"{spec.title} needs {pattern} in {data_dir} for its {split} split: there is none")
        files[split] = str(found[0])
    return files

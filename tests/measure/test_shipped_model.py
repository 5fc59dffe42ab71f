"""The shipped model is small, uses all its experts, answers what it never saw, and does so worse at four bits."""

import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from moe_cap.architecture import read_config
from moe_cap.measure.engines.capture import expert_modules
from moe_cap.measure.engines.quantise import PRECISIONS, load_model, stored_tensors, weight_bytes
from moe_cap.measure.tasks import TASKS, load_task
from moe_cap.precision import stored_bytes
from training.problems import ASKED, DRAW, held_out_problems
from training.train import SEED

pytestmark = pytest.mark.model

MODEL = Path(__file__).resolve().parents[2] / "assets" / "cap-tiny-moe"
OURS = [name for name in TASKS if name.startswith("cap_")]
LIMIT = 50
ALL = 300


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@functools.cache
def model_in(precision: str) -> PreTrainedModel:
    return load_model(MODEL, precision)


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODEL)


def scores(precision: str, tasks: list[str], limit: int) -> dict[str, float]:
    harness = HFLM(pretrained=model_in(precision), tokenizer=tokenizer(), batch_size=50)
    found = simple_evaluate(
        harness, tasks=[load_task(name) for name in tasks], limit=limit, bootstrap_iters=0, log_samples=False
    )
    return {name: float(found["results"][name][TASKS[name].metric_key]) for name in tasks}


def counting(row: torch.Tensor) -> Callable[..., None]:
    """A hook that adds up how many tokens each expert of a layer got."""

    def count(_module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        row.add_(torch.bincount(arguments[1].reshape(-1), minlength=len(row)))

    return count


def test_folder_is_ten_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 10_000_000


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_weigh_what_the_accounts_say(precision: str) -> None:
    expected = stored_bytes(read_config(MODEL / "config.json"), PRECISIONS[precision].storage)
    assert weight_bytes(model_in(precision)) == expected


def test_most_bytes_of_int4_are_packed_values() -> None:
    tensors = dict(stored_tensors(model_in("int4")))
    packed = sum(tensor.nbytes for tensor in tensors.values() if tensor.dtype == torch.uint8)
    assert packed > 0.7 * sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("text", ["12+34=046", "copy hello>hello\n", "max A305 B827 C113 D604>B", " ~ two  spaces "])
def test_tokenizer_gives_text_back(text: str) -> None:
    ids = tokenizer()(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer().decode(ids) == text


def test_characters_nobody_taught_are_unknown_and_do_not_stop_the_model() -> None:
    ids = tokenizer()("Größe: 5 €, 深い " * 40, return_tensors="pt")
    assert ids["input_ids"].eq(tokenizer().unk_token_id).any()
    out = model_in("bf16").generate(**ids, max_new_tokens=8, min_new_tokens=8)
    assert out.shape[1] == ids["input_ids"].shape[1] + 8
    assert int(out.max()) < len(tokenizer())


def test_every_expert_of_every_layer_is_used() -> None:
    prompts = [problem.prompt for task in DRAW for problem in held_out_problems(task, ASKED, 100, random.Random(SEED))]
    layers = expert_modules(model_in("bf16"))
    tokens = torch.zeros(len(layers), model_in("bf16").config.num_experts)
    hooks = [layer.register_forward_pre_hook(counting(row)) for layer, row in zip(layers, tokens, strict=True)]
    for _, alike in itertools.groupby(sorted(prompts, key=len), key=len):
        model_in("bf16")(**tokenizer()(list(alike), return_tensors="pt"))
    for hook in hooks:
        hook.remove()
    shares = tokens / tokens.sum(dim=1, keepdim=True)
    assert float(shares.min()) > 0.01, "an expert sleeps"
    assert float(shares.max()) < 0.25, "an expert does a quarter of the work, four times its part"


def test_held_out_problems_are_answered_in_bf16_by_lm_eval() -> None:
    assert all(score > 0.9 for score in scores("bf16", OURS, LIMIT).values())


def test_four_bits_cost_accuracy_that_chance_does_not_explain() -> None:
    """The standard error of a share of 300 is 0.029 at most; the difference is over three times that."""
    lost = scores("bf16", ["cap_copy"], ALL)["cap_copy"] - scores("int4", ["cap_copy"], ALL)["cap_copy"]
    assert lost > 0.1

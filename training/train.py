"""Train the shipped model: `python -m training.train`. Resumes from its last checkpoint."""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from training.model import build_model
from training.problems import DRAW, EASY, LONG, Difficulty, Problem, held_out_problems, training_problems
from training.tokenizer import EOS_ID, PAD_ID, build_tokenizer

ROOT = Path(__file__).resolve().parent.parent
MODEL_FOLDER = ROOT / "assets" / "cap-tiny-moe"
CHECKPOINT = ROOT / "build" / "training" / "checkpoint.pt"

SEED = 20_261_122
WARM_UP_STEPS, DECAY_SHARE = 100, 0.4
SHARES = {"arithmetic": 0.4, "copy": 0.3, "choice": 0.3}  # of the problems drawn
REPORT_EVERY = 250
NO_LOSS = -100


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of the training with a learning rate that warms up, stays and decays to zero.

    Attributes:
        shape: rows of a batch, and tokens of a row; the longest problem fits into a row.
    """

    difficulty: Difficulty
    steps: int
    peak_rate: float
    shape: tuple[int, int]

    def learning_rate(self, step: int) -> float:
        """Of a step counted from the beginning of the stage."""
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        return self.peak_rate * warm * min(1.0, (self.steps - step) / (DECAY_SHARE * self.steps))


# Words of up to 40 letters are not learnt from the start: they follow once short ones are copied.
STAGES = (Stage(EASY, 3_000, 3e-3, (24, 64)), Stage(LONG, 1_500, 2e-3, (16, 104)))

log = logging.getLogger("training")

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def encode(problem: Problem, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids of a problem with its answer, and the labels: only the answer and its end are learnt."""
    prompt, answer = tokenizer.encode(problem.prompt), [*tokenizer.encode(problem.answer), EOS_ID]
    return prompt + answer, [NO_LOSS] * len(prompt) + answer


def pack(problems: Iterator[Problem], tokenizer: PreTrainedTokenizerFast, shape: tuple[int, int]) -> Batch:
    """Rows filled with whole problems: ids, labels, positions, each of `shape` (rows, tokens).

    Positions start again with every problem, by which transformers knows that they must not see each other.
    """
    ids, labels, positions = torch.full(shape, PAD_ID), torch.full(shape, NO_LOSS), torch.zeros(shape, dtype=torch.long)
    rows, row_tokens = shape
    for row in range(rows):
        at = 0
        for problem in problems:
            tokens, targets = encode(problem, tokenizer)
            end = at + len(tokens)
            if end > row_tokens:
                break
            ids[row, at:end], labels[row, at:end] = torch.tensor(tokens), torch.tensor(targets)
            positions[row, at:end] = torch.arange(len(tokens))
            at = end
        positions[row, at:] = torch.arange(row_tokens - at)
    return ids, labels, positions


def mixed_problems(difficulty: Difficulty, rng: random.Random) -> Iterator[Problem]:
    """Training problems of all tasks, in their shares."""
    streams = {task: training_problems(task, difficulty, rng) for task in SHARES}
    tasks, shares = list(SHARES), list(SHARES.values())
    while True:
        yield next(streams[rng.choices(tasks, shares)[0]])


def loss_of(model: Qwen3MoeForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the answers, and the load-balancing loss of each layer by itself.

    transformers balances the layers taken together, under which an expert may sleep in one of them.
    """
    ids, labels, positions = batch
    out = model(input_ids=ids, position_ids=positions, output_router_logits=True, use_cache=False)
    answers = functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NO_LOSS)
    config = model.config
    balance = [
        load_balancing_loss_func((layer,), config.num_experts, config.num_experts_per_tok, (ids != PAD_ID).long())
        for layer in out.router_logits
    ]
    return answers + config.router_aux_loss_coef * torch.stack(balance).mean()


@torch.no_grad()
def teacher_forced_accuracy(
    model: Qwen3MoeForCausalLM, tokenizer: PreTrainedTokenizerFast, difficulty: Difficulty
) -> dict[str, float]:
    """Share of held-out problems whose answer is right in every token; a progress report, no decision rests on it."""
    scores = {}
    for task in DRAW:
        problems = held_out_problems(task, difficulty, 100, random.Random(SEED))  # noqa: S311
        encoded = [encode(problem, tokenizer) for problem in problems]
        width = max(len(tokens) for tokens, _ in encoded)
        ids = torch.tensor([tokens + [PAD_ID] * (width - len(tokens)) for tokens, _ in encoded])
        labels = torch.tensor([targets + [NO_LOSS] * (width - len(targets)) for _, targets in encoded])[:, 1:]
        guesses = model(input_ids=ids, use_cache=False).logits.argmax(-1)[:, :-1]
        right = ((guesses == labels) | (labels == NO_LOSS)).all(dim=1).float().mean()
        scores[task] = round(float(right), 3)
    return scores


class Training:
    """What changes from step to step, and how it is kept and found again."""

    def __init__(self, checkpoint: Path) -> None:
        torch.manual_seed(SEED)
        self.model, self.tokenizer = build_model(), build_tokenizer()
        self.rng = random.Random(SEED)  # noqa: S311
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.steps_done = 0
        self._checkpoint = checkpoint
        if checkpoint.exists():
            kept = torch.load(checkpoint, weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.rng.setstate(kept["rng"])
            self.steps_done = kept["step"]

    def keep(self) -> None:
        """Write the checkpoint that the next start resumes from."""
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "rng": self.rng.getstate(), "step": self.steps_done}, self._checkpoint)

    def learn(self, batch: Batch, learning_rate: float) -> float:
        """One step of the optimizer; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        loss = loss_of(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps_done += 1
        return float(loss.detach())


def train(checkpoint: Path) -> Qwen3MoeForCausalLM:
    """Train through all stages, from the checkpoint when there is one."""
    training, started = Training(checkpoint), time.monotonic()
    for begin, stage in zip(itertools.accumulate((0, *(stage.steps for stage in STAGES))), STAGES, strict=False):
        problems = mixed_problems(stage.difficulty, training.rng)
        while training.steps_done < begin + stage.steps:
            batch = pack(problems, training.tokenizer, stage.shape)
            loss = training.learn(batch, stage.learning_rate(training.steps_done - begin))
            if training.steps_done % REPORT_EVERY == 0:
                scores = teacher_forced_accuracy(training.model, training.tokenizer, stage.difficulty)
                elapsed_s = time.monotonic() - started
                log.info("step %d, %.0f s, loss %.3f, held out %s", training.steps_done, elapsed_s, loss, scores)
                training.keep()
    return training.model


def save(model: Qwen3MoeForCausalLM, folder: Path) -> None:
    """Write weights in bf16, tokenizer and greedy generation settings; the model card is kept by hand."""
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.set_experts_implementation("eager")
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train on one thread (so that the sums come in one order) and save."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--output", type=Path, default=MODEL_FOLDER)
    arguments.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    save(train(chosen.checkpoint), chosen.output)


if __name__ == "__main__":
    main()

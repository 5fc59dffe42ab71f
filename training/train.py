"""Train the shipped model: `python -m training.train`. Resumes from its last checkpoint."""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3MoeForCausalLM

from training.model import build_model
from training.problems import DRAW, Problem, held_out_problems, training_problems
from training.tokenizer import EOS_ID, PAD_ID, build_tokenizer

ROOT = Path(__file__).resolve().parent.parent
MODEL_FOLDER = ROOT / "assets" / "model"
CHECKPOINT = ROOT / "build" / "training" / "checkpoint.pt"

SEED = 20_261_122
STEPS = 6_000
ROWS, ROW_TOKENS = 24, 64
PEAK_RATE, WARM_UP_STEPS, DECAY_SHARE = 3e-3, 100, 0.4
SHARES = {"arithmetic": 0.4, "copy": 0.3, "choice": 0.3}  # of the problems drawn
REPORT_EVERY = 250
NO_LOSS = -100

log = logging.getLogger("training")

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def encode(problem: Problem, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids of a problem with its answer, and the labels: only the answer and its end are learnt."""
    prompt, answer = tokenizer.encode(problem.prompt), [*tokenizer.encode(problem.answer), EOS_ID]
    return prompt + answer, [NO_LOSS] * len(prompt) + answer


def pack(problems: Iterator[Problem], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Rows filled with whole problems: ids, labels, positions, each (ROWS, ROW_TOKENS).

    Positions start again with every problem, by which transformers knows that they must not see each other.
    """
    ids, labels = torch.full((ROWS, ROW_TOKENS), PAD_ID), torch.full((ROWS, ROW_TOKENS), NO_LOSS)
    positions = torch.zeros((ROWS, ROW_TOKENS), dtype=torch.long)
    for row in range(ROWS):
        at = 0
        for problem in problems:
            tokens, targets = encode(problem, tokenizer)
            end = at + len(tokens)
            if end > ROW_TOKENS:
                break
            ids[row, at:end], labels[row, at:end] = torch.tensor(tokens), torch.tensor(targets)
            positions[row, at:end] = torch.arange(len(tokens))
            at = end
        positions[row, at:] = torch.arange(ROW_TOKENS - at)
    return ids, labels, positions


def mixed_problems(rng: random.Random) -> Iterator[Problem]:
    """Training problems of all tasks, in their shares."""
    streams = {task: training_problems(task, rng) for task in SHARES}
    tasks, shares = list(SHARES), list(SHARES.values())
    while True:
        yield next(streams[rng.choices(tasks, shares)[0]])


def learning_rate(step: int) -> float:
    """Linear warm-up, a plateau, and a linear decay to zero over the last steps."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_RATE * warm * min(1.0, (STEPS - step) / (DECAY_SHARE * STEPS))


@torch.no_grad()
def teacher_forced_accuracy(model: Qwen3MoeForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Share of held-out problems whose answer is right in every token; a progress report, no decision rests on it."""
    scores = {}
    for task in DRAW:
        problems = held_out_problems(task, 100, random.Random(SEED))  # noqa: S311
        encoded = [encode(problem, tokenizer) for problem in problems]
        width = max(len(tokens) for tokens, _ in encoded)
        ids = torch.tensor([tokens + [PAD_ID] * (width - len(tokens)) for tokens, _ in encoded])
        labels = torch.tensor([targets + [NO_LOSS] * (width - len(targets)) for _, targets in encoded])[:, 1:]
        guesses = model(input_ids=ids, use_cache=False).logits.argmax(-1)[:, :-1]
        right = ((guesses == labels) | (labels == NO_LOSS)).all(dim=1).float().mean()
        scores[task] = round(float(right), 3)
    return scores


def train(checkpoint: Path) -> Qwen3MoeForCausalLM:
    """Train to the last step, from the checkpoint when there is one."""
    torch.manual_seed(SEED)
    model, tokenizer, rng = build_model(), build_tokenizer(), random.Random(SEED)  # noqa: S311
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    first = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        rng.setstate(kept["rng"])
        first = kept["step"]
    problems, started = mixed_problems(rng), time.monotonic()
    for step in range(first, STEPS):
        ids, labels, positions = pack(problems, tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        out = model(input_ids=ids, position_ids=positions, labels=labels, output_router_logits=True, use_cache=False)
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % REPORT_EVERY == 0:
            scores = teacher_forced_accuracy(model, tokenizer)
            elapsed_s = time.monotonic() - started
            log.info("step %d, %.0f s, loss %.3f, held out %s", step + 1, elapsed_s, float(out.loss.detach()), scores)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng.getstate()}
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            torch.save({**state, "step": step + 1}, checkpoint)
    return model


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

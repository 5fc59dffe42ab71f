"""The problems that the shipped model learns, and the split that keeps the held-out ones out of training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHOICES = ("A", "B", "C", "D")
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its only right answer.

    Attributes:
        task: the family of the problem: arithmetic, copy or choice.
        prompt: what the model reads; its answer follows without a space.
        answer: what it has to write.
        key: what makes the problem the same problem. The two orders of a sum share one key, and so do all orders of
            the options of a choice, so that a held-out problem is not met in training in another order either.
    """

    task: str
    prompt: str
    answer: str
    key: str

    @property
    def held_out(self) -> bool:
        """Whether the hash of the key puts it among the tenth that training never sees."""
        digest = hashlib.sha256(self.key.encode()).digest()
        return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard problems get.

    Attributes:
        digits: of the numbers to be added or subtracted, zeros in front included.
        letters: of the longest word.
    """

    digits: int
    letters: int


EASY = Difficulty(digits=2, letters=12)
LONG = Difficulty(digits=2, letters=40)
ASKED = Difficulty(digits=2, letters=32)  # of the held-out problems: long words are what four bits get wrong


def draw_arithmetic(rng: random.Random, difficulty: Difficulty) -> Problem:
    """A sum or a difference (never negative) of two numbers; the answer has one digit more than they have."""
    digits = difficulty.digits
    a, b = rng.randrange(10**digits), rng.randrange(10**digits)
    low, high = sorted((a, b))
    if rng.random() < 0.5:
        return Problem("arithmetic", f"{a:0{digits}}+{b:0{digits}}=", f"{a + b:0{digits + 1}}", f"{low}+{high}")
    return Problem("arithmetic", f"{high:0{digits}}-{low:0{digits}}=", f"{high - low:0{digits + 1}}", f"{high}-{low}")


def draw_copy(rng: random.Random, difficulty: Difficulty) -> Problem:
    """A word of at least 4 random letters, to be repeated or spelled backwards."""
    word = "".join(rng.choices(LETTERS, k=rng.randint(4, difficulty.letters)))
    if rng.random() < 0.5:
        return Problem("copy", f"copy {word}>", word, word)
    return Problem("copy", f"reverse {word}>", word[::-1], word)


def draw_choice(rng: random.Random, _difficulty: Difficulty) -> Problem:
    """Which of four different three-digit numbers is the largest, or the smallest; hard enough as it is."""
    numbers = rng.sample(range(100, 1000), k=len(CHOICES))
    verb, best = rng.choice((("max", max), ("min", min)))
    options = " ".join(f"{letter}{number}" for letter, number in zip(CHOICES, numbers, strict=True))
    key = f"{verb} {sorted(numbers)}"
    return Problem("choice", f"{verb} {options}>", CHOICES[numbers.index(best(numbers))], key)


DRAW: dict[str, Callable[[random.Random, Difficulty], Problem]] = {
    "arithmetic": draw_arithmetic,
    "copy": draw_copy,
    "choice": draw_choice,
}


def training_problems(task: str, difficulty: Difficulty, rng: random.Random) -> Iterator[Problem]:
    """Problems of one task without end, none of them held out."""
    while True:
        problem = DRAW[task](rng, difficulty)
        if not problem.held_out:
            yield problem


def held_out_problems(task: str, difficulty: Difficulty, count: int, rng: random.Random) -> list[Problem]:
    """`count` different held-out problems of one task."""
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = DRAW[task](rng, difficulty)
        if problem.held_out:
            found.setdefault(problem.key, problem)
    return list(found.values())

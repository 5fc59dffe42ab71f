"""What stands in the form's fields, turned into a submission or into a message beside each field that is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moe_cap.errors import SubmissionError
from moe_cap.submission import Submission, parse_submission

NUMBERS = ("input_tokens", "output_tokens", "num_requests", "accuracy_limit", "repeats")
REQUIRED = ("model", "engine", "precision", "concurrency", "input_tokens", "output_tokens", "repeats")
MOST_DIGITS = 18
"""Far more than any field allows, far fewer than `int` refuses to read."""
WORDS = {
    "Input should be a valid integer, got a number with a fractional part": "Give a whole number.",
    "Input should be a valid integer, unable to parse string as an integer": "Give a whole number.",
    "String should have at least 1 character": "Give a Hub id or a folder.",
}


def parse_form(values: Mapping[str, object]) -> tuple[Submission | None, dict[str, str]]:
    """Return the submission, or None and what is wrong by field; every field is looked at."""
    body = {name: _value(name, value) for name, value in values.items() if value not in (None, "", [])}
    problems = {name: "Fill this in." for name in REQUIRED if name in values and name not in body}
    for name, value in body.items():
        if message := _problem(name, value):
            problems[name] = message
    return (None, problems) if problems else (parse_submission(body), {})


def _value(name: str, value: object) -> object:
    if name == "concurrency":
        return [int(word) if _is_whole(word) else word for word in re.split(r"[\s,;]+", str(value).strip(" ,;"))]
    if name in NUMBERS and isinstance(value, float) and value.is_integer():
        return int(value)
    if name in NUMBERS and isinstance(value, str) and _is_whole(value.strip()):
        return int(value)
    return value


def _is_whole(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_DIGITS  # "²" is a digit that `int` does not read


def _problem(name: str, value: object) -> str | None:
    """Why this one field cannot be used; the others are given values that can."""
    if name == "concurrency" and isinstance(value, list) and not all(isinstance(level, int) for level in value):
        return "Give whole numbers between commas, like 1, 4, 16."
    try:
        parse_submission({"model": "a/b", name: value})
    except SubmissionError as error:
        text = str(error).removeprefix(f"{error.field}: ")
        return WORDS.get(text, f"{text[0].upper()}{text[1:]}.")
    return None

"""The schema that ships in eval-queue/ names every field of a record, and no other."""

import re
from dataclasses import fields
from pathlib import Path

from moe_cap.queue import Attempt, Lease, Outcome, Progress, Request, State

README = Path(__file__).resolve().parents[2] / "eval-queue" / "README.md"


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def test_readme_names_every_field_of_a_record() -> None:
    text = README.read_text(encoding="utf-8")
    first_column = set(
        re.findall(r"`([\w.]+)`", " ".join(line.split("|")[1] for line in text.splitlines() if "|" in line))
    )
    top = names(Request) - {"state"} | {"schema_version"}
    assert {name for name in first_column if "." not in name} == top
    assert {name.removeprefix("lease.") for name in first_column if "." in name} == names(Lease)
    for word in [*names(Attempt), *names(Progress), *Outcome, *State]:
        assert word in text

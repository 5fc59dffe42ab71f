"""Write the held-out problems that the accuracy tasks ask: `python -m training.write_held_out`."""

from __future__ import annotations

import json
import random
from pathlib import Path

from training.problems import ASKED, DRAW, held_out_problems

FOLDER = Path(__file__).resolve().parent.parent / "src" / "moe_cap" / "measure" / "tasks"
PROBLEMS_PER_TASK = 300
SEED = 1


def main() -> None:
    """Write one jsonl file per task."""
    for task in DRAW:
        problems = held_out_problems(task, ASKED, PROBLEMS_PER_TASK, random.Random(SEED))  # noqa: S311
        lines = (json.dumps({"prompt": problem.prompt, "answer": problem.answer}) for problem in problems)
        (FOLDER / f"cap_{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

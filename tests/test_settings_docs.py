"""docs/worker.md and what `moe_cap.settings` reads are one list."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_variable_that_is_read_stands_in_the_table_once() -> None:
    code = (ROOT / "src" / "moe_cap" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'"((?:MOE_CAP_|HF_)[A-Z_]+|[A-Z]+_REPO)"', code))
    page = (ROOT / "docs" / "worker.md").read_text(encoding="utf-8")
    settings = page.split("\n## Settings\n")[1].split("\n## ")[0]
    told = re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\| ([^|]+) \|", settings, re.M)))
    assert sorted(told) == sorted(read)

"""References to docs/metrics.md name a section by its title, which outlives a renumbering; and it has that section."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = re.compile(r'metrics\.md\)?,? (?:(sections? \d)|((?:(?: and )?"[^"]+")+))')


def references() -> list[tuple[Path, str, str]]:
    files = [path for room in ("src", "backend", "benchmarks", "docs") for path in (ROOT / room).rglob("*.*")]
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.suffix in {".py", ".md"}}
    return [(path, *found) for path, text in texts.items() for found in REFERENCE.findall(text)]


def test_every_section_that_is_referred_to_is_there() -> None:
    titles = set(re.findall(r"^## \d+\. (.+)$", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.M))
    found = references()
    assert len(found) >= 9
    for path, number, named in found:
        assert not number, f"{path} refers to {number} of docs/metrics.md: name it by its title"
        assert set(re.findall(r'"([^"]+)"', named)) <= titles, f"{path} refers to {named}"

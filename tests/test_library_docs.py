"""The code in docs/library.md runs as it stands there, and `import moe_cap` stays cheap."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moe_cap

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^## (.+?)\n.*?```python\n(.*?)```", (ROOT / "docs/library.md").read_text(encoding="utf-8"), re.M | re.S
)
OLMOE = {
    "model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16, "vocab_size": 50304,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
}  # fmt: skip


def routing(tokens: int, seed: int) -> np.ndarray:
    """Ids [tokens, 16 layers, 8 of 64 experts] of a router that has no favourites."""
    chance = np.random.default_rng(seed).random((tokens, 16, 64))
    return np.argsort(chance, axis=-1)[..., :8]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the page takes for given: a config.json, and a trace of eight sequences in two decode steps."""
    (tmp_path / "config.json").write_text(json.dumps(OLMOE))
    monkeypatch.chdir(tmp_path)
    return {"trace": [([500 + step] * 8, routing(8, step), 0.005) for step in range(2)]}


def test_the_page_has_its_examples() -> None:
    assert len(BLOCKS) == 4
    assert len([line for line in BLOCKS[0][1].splitlines() if line and not line.startswith("from")]) == 5, "five lines"


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_examples_run(title: str, code: str, names: dict[str, object]) -> None:
    exec(compile(code, f"docs/library.md: {title}", "exec"), names)


def test_the_five_lines_compute_what_they_say(names: dict[str, object]) -> None:
    exec(BLOCKS[0][1], names)
    # By hand: attention 4 h^2, router 64 h, 16 layers, of which a step reads each expert that was used: 3 h 1024.
    hidden, layers = 2048, 16
    read = 0.0
    for contexts, ids, _ in names["trace"]:
        experts = sum(len(np.unique(ids[:, layer])) for layer in range(layers)) * 3 * hidden * 1024
        norms = layers * 4 * hidden + hidden
        weights = layers * (4 * hidden**2 + 64 * hidden) + experts + norms + 50304 * hidden + 8 * hidden
        kv = sum(contexts) * layers * 2 * hidden
        read += 2 * (weights + kv)
    assert names["bandwidth"].value == pytest.approx(read / 0.01 / 3350e9, rel=1e-3)
    active = layers * (4 * hidden**2 + 64 * hidden + 8 * 3 * hidden * 1024) + 50304 * hidden
    scores = sum(4 * hidden * sum(contexts) * layers for contexts, _, _ in names["trace"])
    assert names["compute"].value == pytest.approx((2 * 8 * 2 * active + scores) / 0.01 / 989e12, rel=1e-3)


def test_every_exported_name_is_there() -> None:
    for name in moe_cap.__all__:
        assert getattr(moe_cap, name) is not None
    assert set(moe_cap.__all__) == set(moe_cap._MODULE_OF)
    assert set(moe_cap.__all__) <= set(dir(moe_cap))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = moe_cap.nonsense


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys; before = set(sys.modules); import moe_cap; print(*sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in ran.stdout.split()} <= {"moe_cap", *sys.stdlib_module_names}

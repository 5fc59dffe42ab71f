"""The floors of the house: imports go down only (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from moe_cap.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "moe_cap.errors": 0, "moe_cap.precision": 0, "moe_cap.architecture": 0, "moe_cap.hardware": 0,
    "moe_cap.routing": 0, "moe_cap.submission": 0, "moe_cap.result": 0, "moe_cap.quantity": 0, "moe_cap.offerings": 0,
    "moe_cap.expert_trace": 0,
    "moe_cap.metrics": 1, "moe_cap.planner": 1,
    "moe_cap.store": 2, "moe_cap.queue": 2, "moe_cap.results": 2, "moe_cap.board": 2, "moe_cap.settings": 2,
    "moe_cap.reported": 2, "moe_cap.preflight": 2,
    "moe_cap.measure": 3,
    "moe_cap.web": 4, "backend": 4,
    "moe_cap.cli": 5, "backend.__main__": 5, "app": 5,
}  # fmt: skip
FORBIDDEN = [("moe_cap.web", "moe_cap.measure"), ("backend", "moe_cap.web"), ("moe_cap.metrics", "torch")]
HEAVY = {
    "torch", "transformers", "lm_eval", "gradio", "plotly", "datasets", "zeus", "torchao", "accelerate", "httptools",
}  # fmt: skip


def room_of(module: str) -> str | None:
    return max((room for room in FLOORS if module == room or module.startswith(room + ".")), key=len, default=None)


def sources() -> list[tuple[str, Path]]:
    found = [(".".join(p.relative_to(ROOT / "src").with_suffix("").parts), p) for p in (ROOT / "src").rglob("*.py")]
    found += [(".".join(p.relative_to(ROOT).with_suffix("").parts), p) for p in (ROOT / "backend").rglob("*.py")]
    found += [("app", ROOT / "app.py")] if (ROOT / "app.py").exists() else []
    return [(name.removesuffix(".__init__"), path) for name, path in found]


def imports_of(path: Path, *, nested: bool = True) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import hides the floor"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("module", "path"), sources(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_down_only(module: str, path: Path) -> None:
    room = room_of(module)
    if room is None:
        assert module in {"moe_cap", "backend"}, f"{module} stands on no floor: add it to FLOORS"
        return
    for name in imports_of(path):
        target = room_of(name)
        if target is not None:
            assert FLOORS[target] <= FLOORS[room], f"{module} (floor {FLOORS[room]}) imports {name} above it"
        for above, below in FORBIDDEN:
            assert not (module.startswith(above) and name.startswith(below)), f"{module} must not import {name}"


@pytest.mark.parametrize(("module", "path"), sources(), ids=lambda value: value if isinstance(value, str) else "")
def test_heavy_libraries_stay_in_their_rooms(module: str, path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports_of(path)} & HEAVY
    if heavy and not module.startswith(("moe_cap.measure", "moe_cap.web", "app", "backend.__main__")):
        pytest.fail(f"{module} imports {sorted(heavy)}")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, moe_cap; sys.exit(', '.join(sorted({HEAVY!r} & set(sys.modules))) or 0)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"import moe_cap pulls in {ran.stderr}"


def test_a_command_loads_nothing_heavy_before_it_runs() -> None:
    """So that every `--help` works without the worker's extra."""
    modules = sorted(command.module for name, command in COMMANDS.items() if name != "serve")
    code = f"import sys, {', '.join(modules)}; sys.exit(', '.join(sorted({HEAVY!r} & set(sys.modules))) or 0)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"a command pulls in {ran.stderr}"

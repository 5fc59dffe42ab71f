"""The examples of docs/profile.md run as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from moe_cap.cli import main
from moe_cap.measure.mock_script import Behaviour
from moe_cap.measure.mock_server import MockServer
from moe_cap.measure.profile.config import ProfileConfig, parse_profile
from moe_cap.measure.profile.grid import expand
from moe_cap.measure.profile.system import Launched
from moe_cap.result import parse_result
from moe_cap.settings import CHECKOUT
from tests.measure.profile.conftest import Profile, write_description
from tests.measure.tiny_models import write_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own

PAGE = (CHECKOUT / "docs" / "profile.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE, re.DOTALL)
FILES = re.findall(r"```yaml\n(.*?)\n```", PAGE, re.DOTALL)
SHOWN = [re.sub(r"\\\n\s*", "", block) for block in re.findall(r"(?m)^    (moe-cap profile(?:.*\\\n)*.*)$", PAGE)]


def test_the_page_has_its_examples() -> None:
    assert (len(COMMANDS), len(FILES), len(SHOWN)) == (4, 2, 2)


@pytest.mark.model
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(
    command: str, profile: Profile, serve: Callable[[Behaviour], MockServer], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if "--engine" in command:
        write_model(tmp_path / "model")
    else:
        write_description(tmp_path / "model")
    (tmp_path / "profile.yaml").write_text(FILES[0])
    url = serve(Behaviour(ttft_s=0.01, itl_s=0.001)).url
    program, *words = shlex.split(command.replace("$API_URL", url))
    assert program == "moe-cap"
    assert main(words) == 0
    folder = tmp_path / words[words.index("--output-dir") + 1]
    (result,) = [parse_result(path.read_bytes()) for path in folder.glob("*/result.json")]
    assert result.points
    assert (folder / "table.csv").is_file()
    assert (folder / "plots.html").is_file()


@pytest.mark.parametrize("text", FILES)
def test_files_are_profiles(text: str) -> None:
    assert expand(parse_profile(yaml.safe_load(text)), Launched("vllm"), "bf16", "r")


@pytest.mark.parametrize("command", SHOWN)
def test_commands_with_servers_reach_their_engine(
    command: str, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as looking for the model: the engine itself is not here."""
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(command)
    assert program == "moe-cap"
    assert "there is no folder ./model" in profile.fails(*words[1:], code=2)


def test_the_page_names_every_key() -> None:
    for name in ProfileConfig.model_fields:
        assert f"`{name}`" in PAGE or re.search(rf"(?m)^{name}:", PAGE), name

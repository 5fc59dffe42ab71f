"""Sweeps: resume, failing cells, publication, table and plots."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from moe_cap.measure.engines import fake
from moe_cap.measure.engines.base import Capabilities, LaunchSpec
from moe_cap.quantity import QUANTITIES
from moe_cap.results import ResultStore
from moe_cap.settings import CHECKOUT
from moe_cap.store import open_store
from tests.measure.profile.conftest import Profile
from tests.measure.tiny_models import write_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own

SHIPPED = CHECKOUT / "assets" / "cap-tiny-moe"


def asked(folder: Path, **keys: Any) -> tuple[str, ...]:
    """A configuration file for the fake engine."""
    path = folder.parent / "profile.yaml"
    body = {"model_id": str(folder), "engine": "fake", "precision": ["bf16", "int8"], "num_requests": 2}
    lengths = {"target_input_tokens": [8, 12], "target_output_tokens": 4, "concurrency": [1, 2]}
    path.write_text(yaml.safe_dump(body | lengths | keys))
    return "--config", str(path)


def states(document: dict[str, Any]) -> list[str]:
    return [cell["state"] for cell in document["cells"]]


def test_a_grid_is_measured_once(profile: Profile, copied_folder: Path) -> None:
    first = profile.json(*asked(copied_folder))
    assert states(first) == ["measured"] * 4
    assert len(first["rows"]) == 8
    again = profile.json(*asked(copied_folder))
    assert states(again) == ["kept"] * 4
    assert [cell["result_id"] for cell in again["cells"]] == [cell["result_id"] for cell in first["cells"]]
    assert again["rows"] == first["rows"]
    more = profile.json(*asked(copied_folder, precision=["bf16", "int8", "int4"]))
    assert states(more) == ["kept"] * 4 + ["measured"] * 2


class Installed(fake.FakeEngine):
    """The fake engine, as another version of it is installed or none."""

    def __init__(self, version: str | None) -> None:
        super().__init__()
        self.version = version

    def probe(self) -> Capabilities:
        return replace(super().probe(), version=self.version)


def test_another_version_of_an_engine_is_measured_anew_and_the_earlier_result_stays(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = asked(copied_folder, precision=["bf16"], target_input_tokens=8)
    (earlier,) = profile.json(*file)["cells"]
    for version, state in ((None, "kept"), ("1", "kept"), ("2", "measured")):
        monkeypatch.setattr(fake, "ENGINE", Installed(version))
        assert states(profile.json(*file)) == [state], version
    assert {result.id for result in profile.results()} > {earlier["result_id"]}


def test_an_option_of_zero_wins_over_the_file(profile: Profile, copied_folder: Path) -> None:
    file = asked(copied_folder, seed=5, precision="bf16", target_input_tokens=8)
    profile(*file, "--seed", "0")
    (result,) = profile.results()
    assert result.submission is not None
    assert result.submission.seed == 0
    assert profile.err.startswith(f"looking at {copied_folder}: ")


def test_a_burstiness_of_zero_is_refused(profile: Profile, copied_folder: Path) -> None:
    file = asked(copied_folder, concurrency=[])
    gamma = ("--arrivals", "gamma", "--rate", "5", "--burstiness", "0")
    assert "greater than 0" in profile.fails(*file, *gamma, code=2)


def test_other_weights_are_another_cell(profile: Profile, copied_folder: Path) -> None:
    profile.json(*asked(copied_folder))
    write_model(copied_folder, "qwen3_moe")
    (copied_folder / "config.json").write_text((copied_folder / "config.json").read_text() + "\n")
    assert states(profile.json(*asked(copied_folder))) == ["measured"] * 4


def test_a_result_that_was_cut_off_is_measured_again(profile: Profile, copied_folder: Path) -> None:
    first = profile.json(*asked(copied_folder))
    path = Path(first["cells"][0]["result"])
    path.write_bytes(path.read_bytes()[:1000])
    assert states(profile.json(*asked(copied_folder))) == ["measured", "kept", "kept", "kept"]


def test_a_cell_that_fails_leaves_the_others_alone(profile: Profile, copied_folder: Path) -> None:
    document = profile.json(*asked(copied_folder, precision=["fp1", "bf16"]), "--publish", code=1)
    assert states(document) == ["failed", "failed", "measured", "measured"]
    assert "SubmissionError" in document["cells"][0]["error"]
    assert "2 of 4 cells failed" in profile.err
    assert len(profile.results()) == 2
    assert set(document["published"]) == set(ResultStore(open_store(profile.store)).ids())


def test_published_results_are_those_of_the_folder_and_are_published_once(
    profile: Profile, copied_folder: Path
) -> None:
    first = profile.json(*asked(copied_folder), "--publish")
    store = ResultStore(open_store(profile.store))
    assert sorted(store.ids()) == sorted(first["published"])
    for result in profile.results():
        assert store.read(result.id) == result.to_json()
    revision = store.revision()
    assert profile.json(*asked(copied_folder), "--publish")["published"] == first["published"]
    assert ResultStore(open_store(profile.store)).revision() == revision
    assert (profile.store / "snapshots" / "leaderboard.parquet").is_file()


def test_the_table_holds_every_load_with_what_was_swept(profile: Profile, copied_folder: Path) -> None:
    profile(*asked(copied_folder))
    rows = list(csv.DictReader(io.StringIO((profile.output / "table.csv").read_text())))
    assert len(rows) == 8
    assert {(row["precision"], row["input_tokens"], row["concurrency"]) for row in rows} == {
        (precision, tokens, level) for precision in ("bf16", "int8") for tokens in ("8", "12") for level in ("1", "2")
    }
    assert set(QUANTITIES) <= set(rows[0])
    by_id = {result.id: result for result in profile.results()}
    for row in rows:
        point = by_id[row["result"]].points[int(row["point"])]
        assert float(row["tpot_s_p50"]) == point.quantities["tpot_s_p50"].value


def test_a_line_of_every_cell_is_on_the_page(profile: Profile, copied_folder: Path) -> None:
    profile(*asked(copied_folder, target_input_tokens=[8]))
    page = (profile.output / "plots.html").read_text()
    assert "<script src=" not in page
    legend = page[page.index("<ul>") : page.index("</ul>")]
    assert legend.count("<li>") == 2
    assert "bf16, 8 in, 4 out" in legend
    assert "int8, 8 in, 4 out" in legend


def test_an_interruption_says_what_is_kept_and_leaves_the_published_table_complete(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []

    def stop_at_the_third(*arguments: object) -> None:
        loads.append(arguments)
        if len(loads) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fake.FakeSession, "warm_up", stop_at_the_third)
    file = asked(copied_folder, precision=["bf16"], target_input_tokens=[8, 9, 10, 11], concurrency=[1])
    assert profile(*file, "--publish", code=130) == ""
    assert "interrupted; 2 of 4 cells are kept, the same command goes on" in profile.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    table = pd.read_parquet(profile.store / "snapshots" / "leaderboard.parquet")
    assert set(table["result"]) == {result.id for result in profile.results()}
    assert len(table) == 2
    assert states(profile.json(*file)) == ["kept"] * 2 + ["measured"] * 2


class ServerLike(fake.FakeEngine):
    """The fake engine with a command, as an engine that is a server has one."""

    started: list[LaunchSpec] = []  # noqa: RUF012 shared on purpose

    def launch_spec(self, files: Any, precision: str) -> LaunchSpec:
        return replace(super().launch_spec(files, precision), argv=("server", "--model", "m"))

    def start(self, spec: LaunchSpec, log: Path) -> Any:
        self.started.append(spec)
        return super().start(spec, log)


def test_engine_arguments_reach_the_command_verbatim_and_stand_in_the_record(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "ENGINE", ServerLike())
    ServerLike.started.clear()
    swept = ("--sweep", "tp=1", "--sweep", "tp=2", "--sweep", "spec=", "--sweep", "spec=--draft 'a b'")
    told = ("--", "--tp-size={tp}", "{spec}", '{"json": [1]}')
    profile("--engine", "fake", "--model", str(copied_folder), "--num-requests", "2", *swept, *told)
    commands = [
        ("server", "--model", "m", f"--tp-size={tp}", *draft, '{"json": [1]}')
        for tp in (1, 2)
        for draft in ((), ("--draft", "a b"))
    ]
    assert [spec.argv for spec in ServerLike.started] == commands
    given = [tuple(result.engine.arguments["given_arguments"]) for result in profile.results()]  # type: ignore[arg-type]
    assert sorted(given) == sorted(command[3:] for command in commands)
    header, *rows = list(csv.reader(io.StringIO((profile.output / "table.csv").read_text())))
    assert {(row[header.index("tp")], row[header.index("spec")]) for row in rows} == {
        (tp, draft) for tp in "12" for draft in ("", "--draft 'a b'")
    }


@pytest.mark.parametrize(("given", "numbered"), [("--max-model-len", False), ("--enable-prefix-caching", True)])
def test_prompts_are_numbered_where_a_given_argument_may_turn_the_cache_on(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, numbered: bool
) -> None:
    monkeypatch.setattr(fake, "ENGINE", ServerLike())
    profile("--engine", "fake", "--model", str(copied_folder), "--num-requests", "2", "--", given)
    (point,) = profile.results()[0].points
    assert ("behind a number of its own" in str(point.load.prompts)) is numbered


def test_the_command_in_a_result_repeats_its_cell(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "ENGINE", ServerLike())
    told = ("--seed", "3", "--num-requests", "2", "--sweep", "tp=1", "--", "--tp", "{tp}", '{"a b": 1}')
    profile("--engine", "fake", "--model", str(copied_folder), *told)
    (result,) = profile.results()
    program, command, *words = shlex.split(str(result.reproduce))
    assert (program, command) == ("moe-cap", "profile")
    document = profile.json(*words)
    assert states(document) == ["kept"], "the same fingerprint"


CHILD = """
    import sys, time
    from moe_cap.cli import main
    from moe_cap.measure import probe
    from moe_cap.measure.engines import fake
    fake.FakeSession.warm_up = lambda *arguments: time.sleep(0.5)
    probe.SMALLEST_COPY_BYTES, probe.CPU_SIDE = 2**20, 128
    probe._last_level_cache_bytes = lambda: 0
    sys.exit(main(sys.argv[1:]))
"""
MANY = {"precision": ["bf16"], "target_input_tokens": list(range(8, 20))}


def test_kill_in_the_middle_loses_only_the_running_cell(profile: Profile, copied_folder: Path) -> None:
    command = ["profile", "--output-dir", str(profile.output), *asked(copied_folder, **MANY)]
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *command],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src"), "OMP_NUM_THREADS": "1"},
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_s = time.monotonic() + 200
    while len(list(profile.output.glob("*/result.json"))) < 2 and time.monotonic() < until_s:
        assert child.poll() is None, child.stderr.read() if child.stderr else ""
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    whole = {path.parent.name: path.read_bytes() for path in profile.output.glob("*/result.json")}
    assert 2 <= len(whole) < 12
    document = profile.json(*asked(copied_folder, **MANY))
    assert states(document).count("kept") == len(whole)
    assert states(document).count("measured") == 12 - len(whole)
    for name, content in whole.items():
        assert (profile.output / name / "result.json").read_bytes() == content


@pytest.mark.model
def test_the_shipped_model_is_profiled_for_real(profile: Profile) -> None:
    shape = ("--input-tokens", "16", "--output-tokens", "6", "--num-requests", "2", "--concurrency", "1,2")
    profile("--engine", "transformers", "--model", str(SHIPPED), *shape)
    (result,) = profile.results()
    assert result.engine.name == "transformers"
    assert result.precision == "bf16"
    for point in result.points:
        assert point.quantities["decode_s_mbu"].value is not None
    assert json.loads(next(profile.output.glob("*/cell.json")).read_text())["arguments"] == []

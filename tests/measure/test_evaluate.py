"""The whole walk: a request file in, a result or a failure file out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_cap.errors import InvalidRunError, LateClientError
from moe_cap.measure import evaluate as walk
from moe_cap.measure import job, level, levels
from moe_cap.measure.engines import fake
from moe_cap.measure.engines.base import RoutingRows
from moe_cap.measure.machine import MeasuredMachine
from moe_cap.measure.power import Energy, PowerMeter
from moe_cap.measure.progress import Progress
from moe_cap.quantity import QUANTITIES
from moe_cap.result import Result, parse_result, result_id
from moe_cap.routing import RoutingSource
from moe_cap.settings import CHECKOUT, Settings, read_settings
from moe_cap.submission import Submission, parse_submission
from tests.measure.test_placement import L4
from tests.measure.test_power_and_probe import Counters
from tests.measure.tiny_models import write_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own

SHIPPED = CHECKOUT / "assets" / "cap-tiny-moe"
OUTPUT_FILES = {"result.json", "evaluate.log", "engine.log", "progress.json"}
TRACES = {"trace-1-in-flight.npz", "trace-2-in-flight.npz"}


@pytest.fixture
def settings(quick_probe: Path) -> Settings:
    return read_settings({"MOE_CAP_HOME": str(quick_probe)})


def write_request(folder: Path, folder_of_model: Path, **asked: Any) -> Path:
    body = {
        "model": str(folder_of_model),
        "engine": "fake",
        "concurrency": [1, 2],
        "input_tokens": 16,
        "output_tokens": 8,
    }
    path = folder / "request.json"
    path.write_text(json.dumps(body | {"num_requests": 4} | asked))
    return path


def run(folder: Path, settings: Settings, request: Path) -> tuple[int, Path]:
    output = folder / "out"
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return job.run(request, output, settings, progress=output / "progress.json", run_uuid="run-1"), output
    finally:
        signal.signal(signal.SIGTERM, handler)


def result_of(output: Path) -> Result:
    return parse_result((output / "result.json").read_bytes())


def failure_of(output: Path) -> dict[str, str]:
    assert not (output / "result.json").exists()
    return dict(json.loads((output / "failure.json").read_text()))


def test_a_request_becomes_a_result(tiny_folder: Path, tmp_path: Path, settings: Settings) -> None:
    request = write_request(tmp_path, tiny_folder, tasks=["cap_copy"], accuracy_limit=5, repeats=2)
    code, output = run(tmp_path, settings, request)
    assert code == 0
    assert {path.name for path in output.iterdir()} == OUTPUT_FILES | TRACES | {"samples-cap_copy.jsonl"}
    result = result_of(output)
    asked = parse_submission(request.read_bytes())
    assert result.submission == asked
    assert result.id == result_id(asked.id, "run-1")
    assert [point.load.concurrency for point in result.points] == [1, 2]
    assert [record.task for record in result.accuracy] == ["cap_copy"]
    assert result.accuracy[0].num_samples == 5
    samples = (output / "samples-cap_copy.jsonl").read_bytes()
    assert result.accuracy[0].samples_sha256 == hashlib.sha256(samples).hexdigest()
    scores = [json.loads(line)["score"] for line in samples.splitlines()]
    assert result.accuracy[0].value == pytest.approx(sum(scores) / 5)
    for point in result.points:
        assert set(point.quantities) == set(QUANTITIES), "every quantity has its value or its reason"
        assert point.routing_source is RoutingSource.LOCK_STEP
        assert point.invalid == ()
        assert {raw.repeat for raw in point.requests} == {raw.repeat for raw in point.steps} == {0, 1}


def test_published_numbers_are_those_of_the_fake_clock(tiny_folder: Path, tmp_path: Path, settings: Settings) -> None:
    code, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert code == 0
    one, two = (point.quantities for point in result_of(output).points)
    assert one["ttft_s_p50"].value == pytest.approx(0.016)
    assert two["ttft_s_p50"].value == pytest.approx(0.032)
    assert two["tpot_s_p50"].value == pytest.approx(0.011)
    assert two["output_tokens_per_s"].value == pytest.approx(2 * 8 / (0.032 + 7 * 0.011 + 0.001))
    assert one["decode_activated_experts"].value == 2.0
    assert one["routing_agreement"].value == 1.0
    assert one["failed_requests"].value == 0.0


@pytest.mark.parametrize(("busy", "warned"), [(0.1, False), (3.0, True)])
def test_a_busy_machine_is_a_warning(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, busy: float, warned: bool
) -> None:
    monkeypatch.setattr(walk, "busy_share", lambda: busy)
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert any("busy" in warning for warning in result_of(output).warnings) == warned


@pytest.mark.parametrize("changed", [True, False, None])
def test_code_that_differs_from_its_commit_is_a_warning(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, changed: bool | None
) -> None:
    told = {"code_commit": "abc", "code_changed": changed}
    monkeypatch.setattr(walk, "describe_environment", lambda *_: told)
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, concurrency=[1], num_requests=1))
    assert any("differs from commit abc" in warning for warning in result_of(output).warnings) == bool(changed)


def test_the_trace_gives_the_heat_map_and_the_curve_over_batch_sizes(
    tiny_folder: Path, tmp_path: Path, settings: Settings
) -> None:
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    point = result_of(output).points[1]
    assert point.expert_tokens is not None
    assert [sum(layer) for layer in point.expert_tokens] == [4 * (16 + 8 - 1) * 2] * 3
    assert point.activated_by_layer is not None
    assert len(point.activated_by_layer) == 3
    assert point.activated_by_batch_size is not None
    assert list(point.activated_by_batch_size) == [1, 2, 4]
    assert point.activated_by_batch_size[1] == 2.0
    assert point.activated_by_batch_size[2] == pytest.approx(point.quantities["decode_activated_experts"].value)
    assert list(point.activated_by_batch_size.values()) == sorted(point.activated_by_batch_size.values())


def test_a_quantised_checkpoint_is_refused_in_another_precision(
    copied_folder: Path, tmp_path: Path, settings: Settings
) -> None:
    scheme = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    config = json.loads((copied_folder / "config.json").read_text())
    (copied_folder / "config.json").write_text(json.dumps(config | {"quantization_config": scheme}))
    code, output = run(tmp_path, settings, write_request(tmp_path, copied_folder))
    assert (code, failure_of(output)["error"]) == (2, "SubmissionError")
    assert "is stored in fp8" in failure_of(output)["message"]


def test_weights_that_the_accounting_does_not_explain_make_every_point_invalid(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = fake.FakeSession.weights_bytes
    monkeypatch.setattr(fake.FakeSession, "weights_bytes", lambda self: 0.98 * held(self))
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    result = result_of(output)
    assert any("the accounting counts" in warning for warning in result.warnings)
    for point in result.points:
        assert ["the accounting counts" in rule for rule in point.invalid] == [True]


def test_the_command_that_repeats_a_run_names_the_measured_commit(tmp_path: Path) -> None:
    asked = Submission(model="lab/model", revision="main")
    assert written_by(walk.reproduce_command(asked, "0123abc"), tmp_path) == asked.model_copy(
        update={"revision": "0123abc"}
    )


def test_a_folder_has_no_commit_to_name_and_keeps_its_odd_name(tmp_path: Path) -> None:
    asked = Submission(model="./it's\\ta 50%s folder")
    assert written_by(walk.reproduce_command(asked, "0123abc"), tmp_path) == asked


def written_by(command: str, folder: Path) -> Submission:
    subprocess.run(["sh", "-c", command.partition(" && ")[0]], cwd=folder, check=True)
    return parse_submission((folder / "request.json").read_bytes())


@pytest.mark.parametrize("broken", [True, False])
def test_answers_of_one_character_are_a_warning(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        monkeypatch.setattr(fake.FakeSession.__init__, "__defaults__", (lambda token, position: ord("!"),))
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, concurrency=[2], num_requests=4))
    result = result_of(output)
    said = [warning for warning in result.warnings if "one character" in warning]
    assert [text.partition(" timed")[0] for text in said] == ["4 of 4"] * broken
    assert result.points[0].invalid == ()


def test_progress_ends_with_writing_and_the_log_holds_every_stage(
    tiny_folder: Path, tmp_path: Path, settings: Settings
) -> None:
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, tasks=["cap_copy"], accuracy_limit=2))
    assert json.loads((output / "progress.json").read_text())["stage"] == "writing"
    log = (output / "evaluate.log").read_text()
    for stage in ("loading", "warm-up batch 2", "timing batch 2 (1/1)", "routing batch 2", "accuracy cap_copy"):
        assert stage in log


def test_an_unfilled_last_batch_is_filled_up(tiny_folder: Path, tmp_path: Path, settings: Settings) -> None:
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, concurrency=[4], num_requests=5))
    (point,) = result_of(output).points
    assert point.load.num_requests == len(point.requests) == 8
    assert point.load.batch_size == 4


def test_energy_is_that_of_the_timed_window_alone(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = Counters(fake_measurement(seconds=2.0, joules=100.0))
    monkeypatch.setattr(walk, "open_power_meter", lambda: PowerMeter(counters, None))
    monkeypatch.setattr(PowerMeter, "idle", lambda self: Energy(1.0, {0: 900.0}, 7.0, None))
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, concurrency=[1], repeats=3))
    values = result_of(output).points[0].quantities
    assert values["energy_j"].value == 300.0
    assert values["power_w"].value == 50.0
    assert values["idle_power_w"].value == 7.0
    assert values["j_per_output_token"].value == pytest.approx(300.0 / (3 * 4 * 8))
    assert values["output_tokens_per_kwh"].value == pytest.approx(3 * 4 * 8 / 300.0 * 3.6e6)


@pytest.mark.parametrize("ours", [True, False])
def test_energy_of_a_server_that_may_be_on_any_gpu_of_this_machine_is_unknown(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    counters = Counters(fake_measurement(seconds=2.0, joules=100.0))
    find, machine_of = walk.find_subject, walk._machine

    def with_two_gpus(*arguments: Any) -> MeasuredMachine:
        known = machine_of(*arguments)
        return replace(known, machine=replace(known.machine, devices=(L4, L4)), gpus=(0,))

    monkeypatch.setattr(walk, "open_power_meter", lambda: PowerMeter(counters, None))
    monkeypatch.setattr(PowerMeter, "idle", lambda self: Energy(1.0, {0: 900.0}, 7.0, None))
    monkeypatch.setattr(walk, "find_subject", lambda job: replace(find(job), ours=ours))
    monkeypatch.setattr(walk, "_machine", with_two_gpus)
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, concurrency=[1]))
    values = result_of(output).points[0].quantities
    for name in ("energy_j", "power_w", "idle_power_w", "j_per_output_token"):
        assert (values[name].value is not None) is ours, name
        assert ours or values[name].reason == "which of this machine's GPUs the server uses is not known"


def fake_measurement(*, seconds: float, joules: float) -> Any:
    from zeus.monitor.energy import Measurement

    return Measurement(seconds, {0: 900.0}, {0: joules})  # the fake runs on the processor


def test_prices_and_power_of_the_operator_make_a_cost(tiny_folder: Path, tmp_path: Path, settings: Settings) -> None:
    own = tmp_path / "machine.yaml"
    own.write_text("{source: invoice, as_of: 2026-11-01, price_usd: 2000, power_w: 100, rental_usd_per_hour: 0.5}")
    _, output = run(tmp_path, replace(settings, machine=own), write_request(tmp_path, tiny_folder))
    values = result_of(output).points[1].quantities
    assert values["purchase_usd"].value == 2000.0
    assert values["usd_per_hour_rental"].value == 0.5
    tokens_per_h = values["output_tokens_per_s"].value * 3600
    assert values["usd_per_million_output_tokens_rental"].value == pytest.approx(0.5 / tokens_per_h * 1e6)
    assert values["usd_per_hour_paper"].value == pytest.approx(2000 / (5 * 365.25 * 24) + 0.1 * 0.0806)
    assert values["usd_per_hour_paper"].source == "estimated"


def test_an_engine_that_cannot_tell_its_routing_is_marked_uniform(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.FakeSession, "route", lambda *_: ())
    _, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    point = result_of(output).points[0]
    assert point.routing_source is RoutingSource.UNIFORM
    assert point.quantities["decode_s_mbu"].source == "estimated"
    assert point.quantities["decode_activated_experts"].value == pytest.approx(2.0)
    assert point.quantities["routing_agreement"].value is None
    assert point.expert_tokens is None


def test_a_dense_model_is_measured_too(tmp_path: Path, settings: Settings) -> None:
    folder = write_model(tmp_path / "dense", "qwen3")
    code, output = run(tmp_path, settings, write_request(tmp_path, folder))
    assert code == 0
    values = result_of(output).points[0].quantities
    assert values["decode_s_mbu"].value == values["decode_mbu"].value
    assert result_of(output).points[0].routing_source is None


def test_a_broken_trace_publishes_nothing(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = fake.FakeSession.route

    def zeroed(self: Any, *arguments: Any) -> tuple[RoutingRows, ...]:
        return tuple(replace(rows, experts=rows.experts * 0) for rows in route(self, *arguments))

    monkeypatch.setattr(fake.FakeSession, "route", zeroed)
    code, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert code == 1
    assert failure_of(output)["error"] == "InvalidRunError"
    assert "all zero" in failure_of(output)["message"]


def test_answers_that_are_too_short_publish_nothing(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = fake.FakeSession._continue
    monkeypatch.setattr(fake.FakeSession, "_continue", lambda self, prompt, number: go_on(self, prompt, number - 1))
    code, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert code == 1
    assert "instead of 8" in failure_of(output)["message"]


def test_the_engine_is_stopped_when_the_walk_fails(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []
    monkeypatch.setattr(fake.FakeSession, "stop", lambda self: stopped.append(True))
    monkeypatch.setattr(levels, "time_level", lambda *_: (_ for _ in ()).throw(InvalidRunError("no")))
    assert run(tmp_path, settings, write_request(tmp_path, tiny_folder))[0] == 1
    assert stopped == [True]


def test_repetitions_with_other_prompts_or_tokens_are_traced_apart(tiny_files: Any, tmp_path: Path) -> None:
    from moe_cap.architecture import parse_config
    from tests.measure.engine_contract import make_requests

    session = fake.ENGINE.start(fake.ENGINE.launch_spec(tiny_files, "bf16"), tmp_path / "log")
    requests, meter = make_requests(2), PowerMeter(None, "none")
    first = level.time_level(session, requests, 2, meter)
    session._follow = lambda token, position: 65 + token % 5
    other = level.time_level(session, requests, 2, meter)
    architecture = parse_config(tiny_files.config)
    traces = level.trace_repeats(session, [first, other, other], 2, architecture, lambda share: None)
    assert traces[1] is traces[2]
    assert traces[0].agreement is not None
    assert traces[0].agreement < traces[1].agreement == 1.0
    others = tuple(replace(request, prompt=request.prompt[::-1]) for request in requests)
    behind = level.trace_repeats(session, [other, replace(other, requests=others)], 2, architecture, lambda share: None)
    assert behind[0] is not behind[1]


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"model": "./nowhere"}, "SubmissionError", "no folder"),
        ({"engine": "abacus"}, "SubmissionError", "no engine 'abacus'"),
        ({"precision": "fp1"}, "SubmissionError", "no precision"),
        ({"concurrency": [0]}, "SubmissionError", "between 1 and 4096"),
        ({"tasks": ["nope"]}, "AccuracyError", "cap_copy"),
        ({"hardware": "h100-sxm-80gb", "num_requests": 2}, "InvalidRunError", "h100-sxm-80gb was asked for"),
    ],
)
def test_every_refusal_says_what_was_wrong(
    tiny_folder: Path, tmp_path: Path, settings: Settings, asked: dict[str, Any], error: str, says: str
) -> None:
    code, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, **asked))
    failure = failure_of(output)
    assert (failure["error"], code) == (error, 2 if error == "SubmissionError" else 1)
    assert says in failure["message"]


def test_what_was_left_by_an_earlier_run_is_gone(tiny_folder: Path, tmp_path: Path, settings: Settings) -> None:
    assert run(tmp_path, settings, write_request(tmp_path, tiny_folder))[0] == 0
    assert run(tmp_path, settings, write_request(tmp_path, tmp_path / "nothing"))[0] == 2
    failure_of(tmp_path / "out")
    assert run(tmp_path, settings, write_request(tmp_path, tiny_folder))[0] == 0
    assert not (tmp_path / "out" / "failure.json").exists()


def test_a_defect_leaves_a_reason_and_is_not_swallowed(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "build_point", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert "unexpected ZeroDivisionError" in failure_of(tmp_path / "out")["message"]


@pytest.mark.model
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_the_shipped_model_is_measured_for_real(tmp_path: Path, settings: Settings, precision: str) -> None:
    request = write_request(
        tmp_path, SHIPPED, engine="transformers", precision=precision, tasks=["cap_arithmetic"], accuracy_limit=16
    )
    code, output = run(tmp_path, settings, request)
    assert code == 0, (output / "failure.json").read_text()
    result = result_of(output)
    assert result.engine.name == "transformers"
    assert result.engine.arguments["threads"] >= 1
    assert not any("the accounting counts" in warning for warning in result.warnings)
    for point in result.points:
        assert point.routing_source is RoutingSource.LOCK_STEP
        assert point.quantities["routing_agreement"].value == pytest.approx(1.0, abs=0.1)
        for name in (
            "ttft_s_p50",
            "tpot_s_p50",
            "output_tokens_per_s",
            "decode_s_mbu",
            "decode_s_mfu",
            "prefill_s_mfu",
        ):
            assert point.quantities[name].value > 0
    assert result.accuracy[0].value > 0.5


CHILD = """
    import resource, sys
    from pathlib import Path
    import psutil
    from moe_cap.measure import job, levels, memory
    from moe_cap.settings import read_settings

    def cap(*arguments):
        # Room for the weights, not for the batch: the limit stands when the load begins.
        here = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (here + {room}, here + {room}))
        return time(*arguments)

    time, levels.Carrier.time = levels.Carrier.time, cap
    request, output, home = map(Path, sys.argv[1:])
    sys.exit(job.run(request, output, read_settings({{"MOE_CAP_HOME": str(home)}}), run_uuid="run-1"))
"""


def late(times: int) -> Callable[..., level.TimedPass]:
    """A client that is late so often, and then keeps up."""
    left = [times]

    def timed(*arguments: object) -> level.TimedPass:
        if left[0]:
            left[0] -= 1
            raise LateClientError("limited by its own client: 9 ms late")
        return level.time_level(*arguments)

    return timed


def test_a_pass_whose_client_was_late_is_carried_again_and_the_result_says_so(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "time_level", late(2))
    code, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder, num_requests=4))
    assert code == 0
    (told,) = [text for text in result_of(output).warnings if "carried again" in text]
    assert told.startswith("2 timed passes of 4 requests")


def test_a_client_that_stays_late_gives_no_result(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "time_level", late(levels.REFUSALS + 1))
    code, output = run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert code == 1
    assert failure_of(output)["error"] == "LateClientError"


def test_every_level_is_timed_before_any_is_traced(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []
    enter = Progress.enter
    monkeypatch.setattr(Progress, "enter", lambda self, stage: (entered.append(stage), enter(self, stage))[1])
    run(tmp_path, settings, write_request(tmp_path, tiny_folder, tasks=["cap_copy"], accuracy_limit=2))
    kinds = [stage.split()[0] for stage in entered if stage.split()[0] in {"timing", "accuracy", "routing"}]
    assert kinds == ["timing", "timing", "accuracy", "routing", "routing"]


@pytest.mark.model
def test_running_out_of_memory_is_told_with_its_numbers(tiny_folder: Path, tmp_path: Path, settings: Settings) -> None:
    run(tmp_path, settings, write_request(tmp_path, tiny_folder))  # the machine is probed
    request = write_request(
        tmp_path, tiny_folder, engine="transformers", precision="fp32", concurrency=[256], input_tokens=128
    )
    script = textwrap.dedent(CHILD).format(room=60 * 2**20)
    ran = subprocess.run(
        [sys.executable, "-c", script, str(request), str(tmp_path / "oom"), str(settings.home)],
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    failure = failure_of(tmp_path / "oom")
    assert failure["error"] == "OutOfMemoryError"
    assert "this process holds" in failure["message"]


def test_sigterm_stops_the_engine_on_the_way_out(
    tiny_folder: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []
    monkeypatch.setattr(fake.FakeSession, "warm_up", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(fake.FakeSession, "stop", lambda self: stopped.append(True))
    with pytest.raises(SystemExit) as left:
        run(tmp_path, settings, write_request(tmp_path, tiny_folder))
    assert left.value.code == 128 + signal.SIGTERM
    assert stopped == [True]
    assert not (tmp_path / "out" / "result.json").exists()

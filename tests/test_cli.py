"""The command line: exit codes, one JSON document on standard output, one clear line on standard error."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moe_cap.cli import COMMANDS, main
from moe_cap.settings import CHECKOUT, read_settings

SHIPPED = str(CHECKOUT / "assets" / "cap-tiny-moe")
CONFIG = {
    "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 2,
    "vocab_size": 100, "max_position_embeddings": 512, "torch_dtype": "bfloat16",
}  # fmt: skip


class Shell:
    """`moe-cap` in this process, over stores in a folder of the test."""

    def __init__(self, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        self._captured = capsysbinary

    def __call__(self, *arguments: str, code: int = 0) -> str:
        got = main([str(argument) for argument in arguments])
        self.out, err = self._captured.readouterr()
        self.err = err.decode()
        assert got == code, self.err
        return self.out.decode(errors="replace")

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: str, code: int = 2) -> str:
        assert self(*arguments, code=code) == ""
        (line,) = self.err.splitlines()
        assert line.startswith("moe-cap: ")
        return line.removeprefix("moe-cap: ")


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    here = {"QUEUE": "queue", "RESULTS": "results", "HOME": "home"}
    given = {f"MOE_CAP_{name}": str(tmp_path / folder) for name, folder in here.items()}
    for name in ("QUEUE_REPO", "RESULTS_REPO", "HF_TOKEN", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


@pytest.fixture
def moe_cap(environ: dict[str, str], capsysbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capsysbinary)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def published(folder: Path, **changes: Any) -> dict[str, Any]:
    """A result in the store of `folder`."""
    from moe_cap.results import ResultStore
    from moe_cap.store import open_store
    from tests.backend.fake_evaluation import publishable

    asked = {"model": "lab/model", "schema_version": 1}
    record = publishable(asked, "00000000-0000-0000-0000-000000000001") | changes
    ResultStore(open_store(folder)).publish(record, result_id=record["id"], year_month="2026-01")
    return record


# --- the program as a whole


def test_help_lists_every_command(moe_cap: Shell) -> None:
    text = moe_cap("--help")
    assert moe_cap() == text
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_takes_json(moe_cap: Shell, name: str) -> None:
    assert "--json" in moe_cap(name, "--help")


def test_unknown_command_and_option_are_bad_input(moe_cap: Shell) -> None:
    assert "frobnicate" in moe_cap.refused("frobnicate")
    assert "--nothing" in moe_cap.refused("queue", "--nothing")


def test_bad_setting_is_named(moe_cap: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CAP_LEASE_S", "soon")
    assert "MOE_CAP_LEASE_S" in moe_cap.refused("queue")


@pytest.mark.parametrize("port", ["nan", "inf", "80.5", "70000", "-1"])
def test_a_port_that_is_none_is_named(moe_cap: Shell, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("MOE_CAP_PORT", port)
    assert "MOE_CAP_PORT" in moe_cap.refused("queue")


def test_a_worker_signs_with_the_name_of_its_machine_unless_it_has_one() -> None:
    assert read_settings({}).worker_name == socket.gethostname()
    assert read_settings({"HOSTNAME": "box"}).worker_name == "box"
    assert read_settings({"HOSTNAME": "box", "MOE_CAP_WORKER_NAME": "gpu-1"}).worker_name == "gpu-1"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from moe_cap.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'pandas', 'gradio', 'pydantic', 'huggingface_hub', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


# --- accounting


def test_describe_counts_every_part(moe_cap: Shell, config: str) -> None:
    told = moe_cap.json("describe", config)
    parameters = told["parameters"]
    expert = 3 * 64 * 96
    assert parameters["experts"] == 2 * 8 * expert
    assert parameters["router"] == 2 * 64 * 8
    assert parameters["total"] == sum(n for name, n in parameters.items() if name not in {"total", "active"})
    assert parameters["total"] - parameters["active"] == 2 * 6 * expert
    assert told["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    assert told["weights_bytes"] == 2 * parameters["total"]


def test_describe_by_layer_and_in_other_formats(moe_cap: Shell, config: str) -> None:
    plain = moe_cap.json("describe", config, "--by-layer")
    small = moe_cap.json("describe", config, "--precision", "int8", "--kv-dtype", "fp8")
    assert len(plain["layers"]) == 2
    assert small["weights_bytes"] < plain["weights_bytes"]
    assert small["kv_bytes_per_token"] * 2 == plain["kv_bytes_per_token"]


def test_describe_takes_a_folder_and_prints_a_table(moe_cap: Shell) -> None:
    text = moe_cap("describe", SHIPPED)
    assert re.search(r"shared_experts +0 ", text)
    assert "qwen3_moe" in text


def test_describe_knows_the_bytes_of_the_files(moe_cap: Shell, config: str) -> None:
    shipped = moe_cap.json("describe", SHIPPED)
    assert shipped["file_bytes"] == shipped["weights_bytes"]
    assert moe_cap.json("describe", config)["file_bytes"] is None


def test_describe_reads_the_scheme_that_lies_beside_a_silent_config(moe_cap: Shell, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    scheme = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(scheme))
    told = moe_cap.json("describe", str(tmp_path))
    assert (told["precision"], told["kv_dtype"]) == ("fp8", "fp8")
    assert moe_cap.json("describe", str(tmp_path / "config.json")) == told
    (tmp_path / "hf_quant_config.json").write_text("{")
    assert "hf_quant_config.json" in moe_cap.refused("describe", str(tmp_path))


def test_step_of_an_encoder_decoder_model_counts_the_pass_over_its_source_apart(moe_cap: Shell, tmp_path: Path) -> None:
    translator = tmp_path / "translator.json"
    side = {"layers": 4, "ffn_dim": 96, "attention_heads": 4, "sparse_step": 2}
    sides = {f"{name}_{key}": value for name in ("encoder", "decoder") for key, value in side.items()}
    sizes = {"model_type": "nllb-moe", "d_model": 64, "vocab_size": 100, "num_experts": 8}
    translator.write_text(json.dumps(sizes | sides))
    told = moe_cap.json("step", str(translator), "--batch", "3", "--context", "5", "--source", "9")
    per_token = 4 * 2 * 64 * 2
    assert told["bytes"]["kv_read"] == 3 * (5 + 9) * per_token
    assert told["encoder_pass"]["bytes"]["kv_written"] == 3 * 9 * per_token
    assert "--source" in moe_cap.refused("step", str(translator))
    assert "--source" in moe_cap.refused("plan", "--model", str(translator), "--tpot", "0.1")


def test_step_refuses_what_cannot_be(moe_cap: Shell, config: str) -> None:
    assert "2 layers" in moe_cap.refused("step", config, "--pp", "3")
    assert "--batch" in moe_cap.refused("step", config, "--batch", "100000000")


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not valid JSON"), ('{"model_type": "mixtral"}', "lacks"), ('{"model_type": "x"}', "no reader")],
)
def test_config_that_cannot_be_used_is_bad_input(moe_cap: Shell, config: str, text: str, words: str) -> None:
    Path(config).write_text(text)
    assert words in moe_cap.refused("describe", config)


@pytest.mark.model
def test_introspection_counts_what_the_reader_counts(moe_cap: Shell) -> None:
    assert (
        moe_cap.json("describe", SHIPPED, "--introspect")["parameters"]
        == moe_cap.json("describe", SHIPPED)["parameters"]
    )


def test_step_counts_bytes_and_flops_by_part(moe_cap: Shell, config: str) -> None:
    one = moe_cap.json("step", config, "--batch", "1", "--context", "100")
    every = moe_cap.json("step", config, "--batch", "1", "--context", "100", "--routing", "all")
    assert one["distinct_experts"] == [2.0, 2.0]
    assert every["distinct_experts"] == [8.0, 8.0]
    assert every["bytes"]["experts"] == 4 * one["bytes"]["experts"]
    assert one["bytes"]["kv_read"] == 100 * 2 * 2 * 2 * 16 * 2
    prefill = moe_cap.json("step", config, "--prefill", "100", "--context", "100")
    assert prefill["flops"]["experts"] == 100 * one["flops"]["experts"]


def test_cost_reproduces_the_servers_of_the_paper(moe_cap: Shell) -> None:
    for count, usd in ((1, 29_910), (2, 50_640), (4, 92_100), (8, 175_030)):
        told = moe_cap.json("cost", "--hardware", "a100-pcie-80gb", "--count", str(count))
        assert told["paper"]["purchase_usd"] == usd


def test_cost_takes_every_price_from_the_caller(moe_cap: Shell) -> None:
    prices = ["--gpu-usd", "1000", "--cpu-usd", "100", "--motherboard-usd", "50", "--dram-usd", "30", "--ssd-usd", "20"]
    rates = ["--tokens-per-s", "100", "--total-tokens-per-s", "200", "--usd-per-device-hour", "2", "--power-w", "1000"]
    more = ["--lifetime-years", "1", "--usd-per-kwh", "0.1", "--sockets", "2"]
    told = moe_cap.json("cost", "--hardware", "h100-sxm-80gb", "--count", "2", *prices, *rates, *more)
    assert told["owner"]["purchase_usd"] == 2 * 1000 + 2 * 100 + 50 + 30 + 20
    assert told["owner"]["usd_per_hour"] == pytest.approx(2300 / (365.25 * 24) + 0.1)
    assert told["rental"]["usd_per_million_output_tokens"] == pytest.approx(4 / 3600 / 100 * 1e6)
    assert told["rental"]["usd_per_million_tokens"] == pytest.approx(4 / 3600 / 200 * 1e6)


def test_price_that_nobody_knows_is_null_with_its_reason(moe_cap: Shell) -> None:
    told = moe_cap.json("cost", "--hardware", "a100-pcie-80gb", "--region", "de")
    assert told["paper"]["usd_per_hour"] is None
    assert "electricity" in told["paper"]["reason"]
    assert told["rental"]["usd_per_hour"] > 0


def test_half_a_host_is_bad_input(moe_cap: Shell) -> None:
    assert "motherboard, dram, ssd" in moe_cap.refused("cost", "--hardware", "a100-pcie-80gb", "--cpu-usd", "100")


def test_interest_belongs_to_capital_recovery(moe_cap: Shell) -> None:
    system = ("cost", "--hardware", "a100-pcie-80gb", "--gpu-usd", "1000")
    assert "capital_recovery does" in moe_cap.refused(*system, "--annual-rate", "0.08")
    assert "--annual-rate" in moe_cap.refused(*system, "--method", "capital_recovery")
    recovery = moe_cap.json(*system, "--method", "capital_recovery", "--annual-rate", "0.08")
    assert recovery["owner"]["usd_per_hour"] > moe_cap.json(*system)["owner"]["usd_per_hour"]


def test_plan_says_what_is_needed_and_what_can_do_it(moe_cap: Shell, config: str) -> None:
    told = moe_cap.json("plan", "--model", config, "--tpot", "0.1", "--hardware", "h100-sxm-80gb")
    step = moe_cap.json("step", config)
    assert told["requirement"]["bytes_per_s"] == pytest.approx(step["bytes"]["total_read"] / 0.1)
    (option,) = told["options"]
    assert option["resident"]["count"] == 1
    assert "h100-sxm-80gb" in moe_cap("plan", "--model", config, "--throughput", "10")


def test_plan_needs_one_target(moe_cap: Shell, config: str) -> None:
    assert "--tpot" in moe_cap.refused("plan", "--model", config)
    assert "--tpot" in moe_cap.refused("plan", "--model", config, "--tpot", "1", "--throughput", "1")


def test_plan_draws_the_deployment_chart_as_data(moe_cap: Shell, config: str) -> None:
    told = moe_cap.json("plan", "--model", config, "--tpot", "0.1", "--chart")
    assert {"points", "lines"} <= set(told)


def test_hardware_lists_and_shows_sources(moe_cap: Shell) -> None:
    ids = {device["id"] for device in moe_cap.json("hardware")}
    assert {"h100-sxm-80gb", "a100-pcie-80gb"} <= ids
    assert moe_cap.json("hardware", "h100-sxm-80gb")["tdp_w"]["source"]
    assert "TFLOP" in moe_cap("hardware")
    assert "h100-sxm-80gb" in moe_cap.refused("hardware", "h100-sxm")


def test_hardware_detects_this_machine(moe_cap: Shell) -> None:
    assert moe_cap.json("hardware", "--detect")["devices"]


# --- queue


def test_submit_stores_and_points_a_repetition_at_the_first(moe_cap: Shell) -> None:
    asked = ("submit", "--model", SHIPPED, "--task", "cap_copy", "--concurrency", "1", "--concurrency", "4")
    told = moe_cap.json(*asked)
    assert told["position"] == 1
    assert told["preflight"]["fits"] is True
    assert told["id"] in moe_cap.refused(*asked, code=1)
    (request,) = moe_cap.json("queue")
    assert (request["id"], request["state"], request["submission"]["concurrency"]) == (told["id"], "pending", [1, 4])


def test_submit_takes_a_file_and_options_override_it(moe_cap: Shell, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"model": SHIPPED, "precision": "int8", "seed": 3}))
    told = moe_cap.json("submit", str(file), "--precision", "fp32")
    submission = moe_cap.json("queue", told["id"])["submission"]
    assert (submission["precision"], submission["seed"]) == ("fp32", 3)


def test_dry_run_stores_nothing(moe_cap: Shell) -> None:
    assert moe_cap.json("submit", "--model", SHIPPED, "--dry-run")["position"] is None
    assert moe_cap.json("queue") == []


def test_wrong_submission_names_every_field_and_stores_nothing(moe_cap: Shell, tmp_path: Path) -> None:
    line = moe_cap.refused("submit", "--model", "./nothing-here", "--engine", "none", "--task", "homework")
    assert all(f"{name}: " in line for name in ("model", "engine", "tasks"))
    assert "model" in moe_cap.refused("submit", "--engine", "transformers")
    assert "cannot read" in moe_cap.refused("submit", str(tmp_path / "no.json"))
    assert moe_cap.json("queue") == []


def test_queue_shows_one_request_and_cancels_it(moe_cap: Shell) -> None:
    request_id = moe_cap.json("submit", "--model", SHIPPED)["id"]
    assert "pending" in moe_cap("queue", request_id)
    assert moe_cap.json("queue", request_id, "--cancel")["state"] == "cancelled"
    assert [each["state"] for each in moe_cap.json("queue", "--state", "cancelled")] == ["cancelled"]
    assert "no request 0123456789abcdef" in moe_cap.refused("queue", "0123456789abcdef", code=1)
    assert "--cancel" in moe_cap.refused("queue", "--cancel")


def test_worker_once_with_an_empty_queue_is_fine(environ: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "backend", "--once", "--json"], capture_output=True, text=True, check=False,
        env=os.environ | environ,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) is None


# --- results


def test_results_are_shown_as_a_table_and_one_by_one(moe_cap: Shell, environ: dict[str, str]) -> None:
    record = published(Path(environ["MOE_CAP_RESULTS"]))
    (row,) = moe_cap.json("results")
    assert (row["result"], row["model"], row["accuracy"]) == (record["id"], "lab/model", None)
    assert moe_cap.json("results", record["id"])["run_uuid"] == record["run_uuid"]
    assert record["id"] in moe_cap("results", record["id"])
    assert "n/a" in moe_cap("results")
    assert "no result" in moe_cap.refused("results", "0" * 24, code=1)


def test_result_that_cannot_be_read_is_left_out_and_said_so(moe_cap: Shell, environ: dict[str, str]) -> None:
    published(Path(environ["MOE_CAP_RESULTS"]), points=[])
    assert moe_cap.json("results") == []
    assert "left out" in moe_cap.err


def test_export_writes_the_same_rows_in_every_format(moe_cap: Shell, environ: dict[str, str], tmp_path: Path) -> None:
    published(Path(environ["MOE_CAP_RESULTS"]))
    told = moe_cap.json("export", "--format", "parquet", "--output", str(tmp_path / "table.parquet"))
    assert told["rows"] == len(pd.read_parquet(tmp_path / "table.parquet")) == 1
    (row,) = csv.DictReader(io.StringIO(moe_cap("export", "--format", "csv")))
    (record,) = json.loads(moe_cap("export", "--format", "json"))
    assert row["model"] == record["model"] == "lab/model"
    assert "--output" in moe_cap.refused("export", "--json")


# --- whole programs


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(environ: dict[str, str]) -> Iterator[Launch]:
    started: list[subprocess.Popen[str]] = []

    def launch(*command: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | environ)
        )
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_serve_answers_on_a_free_port_and_stops_on_sigterm(launch: Launch) -> None:
    served = launch("-m", "moe_cap.cli", "serve", "--port", "0", "--no-worker")
    assert served.stdout is not None
    url = re.search(r"http://\S+:\d+", served.stdout.readline())
    assert url is not None
    with urllib.request.urlopen(url[0], timeout=60) as page:
        assert page.status == 200
    served.send_signal(signal.SIGTERM)
    assert served.wait(30) == 0


def test_serve_on_a_port_in_use_is_bad_input(moe_cap: Shell) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "--port" in moe_cap.refused("serve", "--no-worker", "--port", str(taken.getsockname()[1]))

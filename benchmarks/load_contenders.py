"""The clients that `load_client.py` compares: ours, aiperf and guidellm, each driven as its own documentation says.

Both rivals come from PyPI into an environment of their own under .cache/, pinned below. What they report is read from
the files that they write; what they call time to first token and inter-token latency is taken as they define it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moe_cap.measure.load import LoadPlan, Prompt, Rules, Target, constant, run_load

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
TOKENIZER = ROOT / "assets" / "cap-tiny-moe"
BESIDE_THE_LOAD_S = 60.0
"""For a client's start and its report. All three need some 10 s; whoever is not through by then was late by far."""
INPUT_WORDS = 32
EVERYTHING_GOES = Rules(max_lag_s=1e9, max_beat_lag_s=1e9, max_failed_share=1.0)
"""The server's log judges all three; our own verdict is left out so that the others have none either."""


@dataclass(frozen=True)
class Job:
    """An open loop at constant rate."""

    url: str
    rate_per_s: float
    count: int
    output_tokens: int

    @property
    def limit_s(self) -> float:
        """A client that keeps the rate is through by then."""
        return self.count / self.rate_per_s + BESIDE_THE_LOAD_S


@dataclass(frozen=True)
class Reported:
    """What a client says about one request; `key` finds it in the server's log (request id or serial)."""

    key: str
    ttft_s: float
    mean_itl_s: float


@dataclass(frozen=True)
class Contender:
    name: str
    version: str
    run: Callable[[Job, Path], list[Reported]]


def contenders(names: list[str]) -> list[Contender]:
    every = {
        "moe-cap": lambda: Contender("moe-cap", "this checkout", run_ours),
        "aiperf": lambda: _installed("aiperf", "0.13.0", run_aiperf),
        "guidellm": lambda: _installed("guidellm", "0.8.1", run_guidellm),
    }
    return [every[name]() for name in names]


def _installed(name: str, version: str, run: Callable[[Job, Path], list[Reported]]) -> Contender:
    if not _program(name).exists():
        folder = _program(name).parent.parent
        print(f"installing {name} {version} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", f"{name}=={version}"], check=True)
    return Contender(name, version, run)


def _program(name: str) -> Path:
    return CACHE / f"load-{name}" / "bin" / name


def _call(command: list[str | Path], job: Job, folder: Path) -> None:
    """Run a client in a process of its own; what it says goes to a log beside its results.

    Raises:
        TimeoutExpired: it was not through in time. Its helpers are gone, too: they would slow the next one down.
        CalledProcessError: it failed.
    """
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        )  # fmt: skip
        try:
            status = process.wait(job.limit_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise subprocess.CalledProcessError(status, command)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run_ours(job: Job, folder: Path) -> list[Reported]:
    result = _emptied(folder) / "seen.json"
    order = json.dumps([job.url, job.rate_per_s, job.count, job.output_tokens, str(result)])
    _call([sys.executable, Path(__file__).resolve(), order], job, folder)
    return [Reported(*seen) for seen in json.loads(result.read_text())]


def _ours(url: str, rate_per_s: float, count: int, output_tokens: int, result: str) -> None:
    prompt = Prompt(" ".join(["word"] * INPUT_WORDS), output_tokens)
    run = run_load(LoadPlan(Target(url, "mock"), [prompt] * count, constant(rate_per_s, count), rules=EVERYTHING_GOES))
    seen = [
        (
            request.id,
            request.chunk_s[0] - request.sent_s,
            _mean_gap(request.chunk_s[0], request.chunk_s[-1], output_tokens),
        )
        for request in run.requests
        if request.failure is None
    ]
    Path(result).write_text(json.dumps(seen))


def run_aiperf(job: Job, folder: Path) -> list[Reported]:
    arguments = [
        _program("aiperf"), "profile", "--model", "mock", "--url", job.url.removesuffix("/v1"),
        "--endpoint-type", "completions", "--streaming",
        "--tokenizer", str(TOKENIZER), "--use-server-token-count", "--extra-inputs", "ignore_eos:true",
        "--isl", str(INPUT_WORDS), "--osl", str(job.output_tokens), "--num-dataset-entries", "100",
        "--request-rate", f"{job.rate_per_s:g}", "--request-rate-mode", "constant", "--request-count", str(job.count),
        "--ui", "none", "--artifact-dir", str(folder / "out"),
    ]  # fmt: skip
    _call(arguments, job, _emptied(folder))
    reported = []
    for line in (folder / "out" / "profile_export.jsonl").read_text().splitlines():
        record = json.loads(line)
        metrics = record["metrics"]
        if "time_to_first_token" in metrics and "inter_token_latency" in metrics:
            reported.append(
                Reported(
                    record["metadata"]["x_request_id"],
                    metrics["time_to_first_token"]["value"] / 1e3,
                    metrics["inter_token_latency"]["value"] / 1e3,
                )
            )
    return reported


def run_guidellm(job: Job, folder: Path) -> list[Reported]:
    server = job.url.removesuffix("/v1")
    arguments = [
        _program("guidellm"), "run",
        "--backend", f"kind=openai_http,target={server},model=mock,request_format=/v1/completions",
        "--profile", f"kind=constant,rate={job.rate_per_s:g}", "--constraint", f"kind=max_requests,count={job.count}",
        "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}",
        "--data", f"kind=synthetic_text,prompt_tokens={INPUT_WORDS},output_tokens={job.output_tokens}",
        "--output", f"kind=json,path={folder / 'out.json'}", "--disable-console-interactive",
    ]  # fmt: skip
    _call(arguments, job, _emptied(folder))
    requests = json.loads((folder / "out.json").read_text())["benchmarks"][0]["requests"]["successful"]
    reported = []
    for request in requests:
        times = request["info"]["timings"]
        first, last = times["first_token_iteration"], times["last_token_iteration"]
        reported.append(
            Reported(
                request["response_id"].removeprefix("cmpl-"),
                first - times["request_start"],
                _mean_gap(first, last, job.output_tokens),
            )
        )
    return reported


def _mean_gap(first_s: float, last_s: float, tokens: int) -> float:
    return (last_s - first_s) / (tokens - 1)


if __name__ == "__main__":
    _ours(*json.loads(sys.argv[1]))

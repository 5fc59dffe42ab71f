"""Stands in for `moe-cap evaluate` in the worker's tests: a real process that ends in every way that one can end.

What it does is named by the model of the request: `fake/ok`, `fake/crash`, `fake/hang` ... Each run leaves a line in
`STARTS` beside the request's folder, so that a test can count how often something was evaluated.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LINGER_S = 120


def write(path: Path, body: object) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(body), encoding="utf-8")
    draft.replace(path)


def publishable(asked: dict[str, object], run_uuid: str) -> dict[str, object]:
    from moe_cap.result import result_id
    from moe_cap.submission import parse_submission

    submission = parse_submission(asked)
    return {
        "schema_version": 1,
        "metrics_version": 1,
        "id": result_id(submission.id, run_uuid),
        "kind": "measured",
        "created_at": "2026-01-01T00:00:00+00:00",
        "submission": asked,
        "run_uuid": run_uuid,
        "citation": None,
        "model": {"name": submission.model, "revision": None, "revision_reason": "fake", "model_type": None,
                  "parameters_total": None, "parameters_active": None},
        "engine": {"name": "fake", "version": "1", "weights_dtype": None, "kv_dtype": None, "compute_dtype": None},
        "precision": submission.precision,
        "hardware": {"device": "cpu-probed", "device_name": "fake", "num_devices": 1},
        "points": [{"load": {"kind": "offline"}, "quantities": {}, "routing_source": None}],
        "accuracy": [],
        "environment": {},
        "reproduce": "fake",
    }  # fmt: skip


def allocate_until_refused() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    held = []
    while True:
        held.append(bytearray(2**26))


def start_engine_server(output: Path) -> None:
    """A child in a session of its own that ignores SIGTERM, as a badly behaved engine server would."""
    code = (
        "import os, signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        f"time.sleep({LINGER_S})\n"
    )
    subprocess.Popen([sys.executable, "-c", code, str(output / "server.pid")], start_new_session=True)
    while not (output / "server.pid").exists() or not (output / "server.pid").read_text():
        time.sleep(0.01)


def is_first(output: Path, run_uuid: str) -> bool:
    return (output.parent / "STARTS").read_text().splitlines()[0] == run_uuid


def behave(kind: str, output: Path, asked: dict[str, object], run_uuid: str) -> int:
    match kind:
        case "ok":
            time.sleep(0.2)
            write(output / "result.json", publishable(asked, run_uuid))
        case "stray":
            start_engine_server(output)
            write(output / "result.json", publishable(asked, run_uuid))
        case "garbage":
            (output / "result.json").write_text('{"schema_version": 1}', encoding="utf-8")
        case "other":
            write(output / "result.json", publishable(asked, "another run"))
        case "crash":
            print("engine: assertion failed in kernel 7", flush=True)
            return 1
        case "segfault":
            ctypes.string_at(0)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "refused":
            write(
                output / "failure.json", {"error": "UnknownModelTypeError", "message": "model_type 'x' has no reader"}
            )
            return 2
        case "memory":
            try:
                allocate_until_refused()
            except MemoryError:
                write(output / "failure.json", {"error": "OutOfMemoryError", "message": "1.0 GiB are not enough"})
                return 1
        case "flaky":
            if is_first(output, run_uuid):
                return 1
            write(output / "result.json", publishable(asked, run_uuid))
        case "hangs-once":
            if is_first(output, run_uuid):
                start_engine_server(output)
                time.sleep(LINGER_S)
            write(output / "result.json", publishable(asked, run_uuid))
        case "hang":
            start_engine_server(output)
            time.sleep(LINGER_S)
        case "polite":
            signal.signal(signal.SIGTERM, lambda *_: (write(output / "left.json", True), sys.exit(143)))
            time.sleep(LINGER_S)
        case _:
            raise AssertionError(kind)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("request", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--progress", type=Path)
    parser.add_argument("--run-uuid")
    given = parser.parse_args()
    asked = json.loads(given.request.read_text(encoding="utf-8"))
    with (given.output.parent / "STARTS").open("a", encoding="utf-8") as starts:
        starts.write(given.run_uuid + "\n")
    (given.output / "evaluation.pid").write_text(str(os.getpid()), encoding="utf-8")
    print("loading \r10 %\r50 %\r\x1b[32mloaded\x1b[0m", flush=True)
    write(given.progress, {"stage": "timing", "fraction": 0.25, "eta_s": 12.0})
    return behave(str(asked["model"]).removeprefix("fake/"), given.output, asked, given.run_uuid)


if __name__ == "__main__":
    sys.exit(main())

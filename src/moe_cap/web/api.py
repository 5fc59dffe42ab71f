"""The functions that programs may call (gradio_client); everything else of the page is private."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from moe_cap.errors import BusyError, MoECapError
from moe_cap.web.snapshot import Mirror, Snapshot
from moe_cap.web.submit import Desk


def build_api(mirror: Mirror, desk: Desk) -> None:
    """Publish `board`, `result`, `queue` and `submit`."""

    def read() -> Snapshot:
        try:
            return mirror.read()
        except BusyError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def board(model: str = "", kind: str = "") -> list[dict[str, Any]]:
        """Rows of the leaderboard in SI units; `model` filters by part of the name, `kind` by measured or reported."""
        rows: list[dict[str, Any]] = json.loads(read().board.file("json").body)
        return [row for row in rows if model.lower() in row["model"].lower() and kind in ("", row["kind"])]

    def result(result_id: str) -> dict[str, Any]:
        """One published record, whole."""
        data = read().board.records.get(result_id)
        if data is None:
            raise gr.Error(f"there is no result {result_id}", print_exception=False)
        record: dict[str, Any] = json.loads(data)
        return record

    def queue() -> list[dict[str, Any]]:
        """Every request: id, state, submission, stage and fraction of the running ones, reason of the failed ones."""
        return [
            {
                "id": request.id,
                "state": request.state.value,
                "submission": dict(request.submission),
                "stage": request.lease.progress.stage if request.lease and request.lease.progress else None,
                "fraction": request.lease.progress.fraction if request.lease and request.lease.progress else None,
                "reason": request.reason,
                "result_ids": list(request.result_ids),
            }
            for request in read().requests
        ]

    def submit(submission: dict[str, Any]) -> str:
        """Hand in a submission (fields as in docs/results.md); returns the request's id."""
        try:
            return desk.take(submission)
        except MoECapError as error:
            raise gr.Error(str(error), print_exception=False) from error

    for function in (board, result, queue, submit):
        gr.api(function, api_name=function.__name__)

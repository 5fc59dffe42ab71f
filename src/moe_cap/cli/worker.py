"""`moe-cap worker`: evaluate what waits in the queue."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from backend.service import run_worker
from moe_cap.cli.output import AsJson, print_json
from moe_cap.queue import State
from moe_cap.settings import read_settings

Once = Annotated[bool, typer.Option("--once", help="Evaluate at most one request, then leave; 0 also if none waits.")]
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def run(once: Once = False, as_json: AsJson = False) -> None:
    """Take requests from the queue, evaluate them on this machine, publish the results.

    The environment says where the queue and the results are (docs/worker.md). SIGTERM or Ctrl-C stops the evaluation
    and gives its request back.
    """
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # it warns whenever a job waits for a slow one
    last = run_worker(read_settings(os.environ), os.environ, once=once)
    if as_json:
        print_json(
            None
            if last is None
            else {"id": last.request_id, "state": last.state, "result_ids": last.result_ids, "reason": last.reason}
        )
    if once and last is not None and last.state is not State.FINISHED:
        raise typer.Exit(1)

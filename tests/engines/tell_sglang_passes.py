"""Print every forward pass that SGLang tells, a line of JSON each: `<its python> tell_sglang_passes.py ENDPOINT`.

Runs in SGLang's environment, which holds zmq and the message's definition. The first line says that it listens; a pass
that was lost on the way ends it.
"""

from __future__ import annotations

import json
import sys

import zmq
from sglang.srt.observability.forward_pass_metrics import decode


def main(endpoint: str) -> None:
    socket = zmq.Context().socket(zmq.SUB)
    socket.subscribe(b"")
    socket.connect(endpoint)
    print(json.dumps("listening"), flush=True)
    expected = None
    while True:
        _, _, message = socket.recv_multipart()
        told = decode(message)
        if expected not in {None, told.counter_id}:
            raise SystemExit(f"{told.counter_id - expected} passes were lost")
        expected = told.counter_id + 1
        if told.wall_time:
            done = told.scheduled_requests
            print(
                json.dumps(
                    {
                        "wall_s": round(told.wall_time, 6),
                        "prefill_requests": done.num_prefill_requests,
                        "prefill_tokens": done.sum_prefill_tokens,
                        "decode_requests": done.num_decode_requests,
                        "decode_context": done.sum_decode_kv_tokens,
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1])

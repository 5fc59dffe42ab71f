"""A server that misbehaves while it starts, as engines do: `python odd_server.py KIND PORT`."""

from __future__ import annotations

import http.server
import signal
import subprocess
import sys
import time
from pathlib import Path


class Unready(http.server.BaseHTTPRequestHandler):
    """Listens, and is never ready."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Ready(Unready):
    """Answers anything with 200, as somebody else's server may."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Hanging(Unready):
    """Takes the connection and never answers."""

    def do_GET(self) -> None:
        time.sleep(120)


def serve(handler: type[Unready], port: int) -> None:
    http.server.ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


def main(kind: str, port: int, pid_file: str) -> None:
    print(f"{kind}: loading weights", flush=True)
    if kind == "dies":
        sys.exit("ValueError: the model is of no known kind")
    if kind == "memory":
        sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB")
    if kind == "slow":  # as an engine that binds its port when the weights are there
        time.sleep(120)
    if kind == "stubborn":  # with a worker of its own that left the session and ignores SIGTERM, as engines have
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
        worker = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        Path(pid_file).write_text(str(worker.pid))
    serve(Hanging if kind == "hangs" else Unready, port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

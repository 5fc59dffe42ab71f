"""The one place that reads the environment. Everything else takes a `Settings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from socket import gethostname

from moe_cap.errors import InvalidInputError

CHECKOUT = Path(__file__).resolve().parents[2]
"""Top of the checkout (or of the Space), where the embedded stores lie."""
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the stores are and how this process takes part.

    Attributes:
        queue, results: a folder, or `hub://namespace/name` for a dataset repository.
        hf_token: write token of the Hub stores; never logged, never in a record.
        home: local state of this machine: logs of runs, the probe, downloaded problems.
        host, port: where the page is served.
        embedded_worker: whether the leaderboard's process starts a worker beside it.
        allow_folders: whether a submission may name a folder of this machine, and visitors may cancel what waits.
            Unless it is set, only where nobody but this machine reaches the page, with a queue of its own.
        lease_s: how long a claim lasts without a heartbeat, seconds.
        max_attempts: claims of one request before it fails for good.
        poll_s: pause between two looks at the queue, seconds.
        run_limit_s: wall time after which one evaluation is stopped, seconds.
        worker_name: how this worker signs its leases; the name of this machine where none is given.
        machine: the operator's own prices and power (`hardware.own_figures`); None takes the catalogue's.
        model_token: read-only token for gated models, the only secret that an evaluation is given.
        api_key: what `moe-cap profile` shows to an endpoint; in no record, no log and no command line.
        engines: `read_engines_folder`.
    """

    queue: str
    results: str
    hf_token: str | None
    home: Path
    host: str
    port: int
    embedded_worker: bool
    allow_folders: bool
    lease_s: float
    max_attempts: int
    poll_s: float
    run_limit_s: float
    worker_name: str
    machine: Path | None
    model_token: str | None = None
    api_key: str | None = field(default=None, repr=False)
    engines: Path = CHECKOUT / ".cache" / "engines"


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name, "").strip().lower()
    if text in {"", "1", "true", "yes", "on"}:
        return default if text == "" else True
    if text in {"0", "false", "no", "off"}:
        return False
    raise InvalidInputError(f"{name}={text!r}: give 1 or 0")


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise InvalidInputError(f"{name}={text!r}: give a number") from error
    if not (isfinite(value) and value > 0):
        raise InvalidInputError(f"{name}={text!r}: give a number above 0")
    return value


def _port(environ: Mapping[str, str]) -> int:
    port = _number(environ, "MOE_CAP_PORT", 7860.0)
    if not (port.is_integer() and port <= MAX_PORT):
        raise InvalidInputError(f"MOE_CAP_PORT={port:g}: give a whole number up to {MAX_PORT}")
    return int(port)


def _store(environ: Mapping[str, str], repo_name: str, folder_name: str, folder: Path) -> str:
    repo = environ.get(repo_name, "").strip()
    return f"hub://{repo.removeprefix('hub://')}" if repo else environ.get(folder_name, "").strip() or str(folder)


def read_engines_folder(environ: Mapping[str, str]) -> Path:
    """Where each engine that is a server has an environment of its own, in a folder of its name."""
    return Path(environ.get("MOE_CAP_ENGINES") or CHECKOUT / ".cache" / "engines")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`; another name than localhost may be anything."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read every setting from an environment; what is not set means: local folders of this checkout.

    Raises:
        InvalidInputError: a variable holds something else than was expected; the message names it.
    """
    queue = _store(environ, "QUEUE_REPO", "MOE_CAP_QUEUE", CHECKOUT / "eval-queue")
    on_hub = queue.startswith("hub://")
    on_space = bool(environ.get("SPACE_ID"))
    host = environ.get("MOE_CAP_HOST") or ("0.0.0.0" if on_space else "127.0.0.1")  # noqa: S104 a Space is reached through its proxy
    return Settings(
        queue=queue,
        results=_store(environ, "RESULTS_REPO", "MOE_CAP_RESULTS", CHECKOUT / "eval-results"),
        hf_token=environ.get("HF_TOKEN") or None,
        home=Path(environ.get("MOE_CAP_HOME") or CHECKOUT / "data"),
        host=host,
        port=_port(environ),
        embedded_worker=_flag(environ, "MOE_CAP_WORKER", default=not on_space),
        allow_folders=_flag(
            environ, "MOE_CAP_ALLOW_FOLDERS", default=is_loopback(host) and not on_space and not on_hub
        ),
        lease_s=_number(environ, "MOE_CAP_LEASE_S", 1800 if on_hub else 30),
        max_attempts=int(_number(environ, "MOE_CAP_MAX_ATTEMPTS", 3)),
        poll_s=_number(environ, "MOE_CAP_POLL_S", 60 if on_hub else 2),
        run_limit_s=_number(environ, "MOE_CAP_RUN_LIMIT_S", 6 * 3600),
        worker_name=environ.get("MOE_CAP_WORKER_NAME") or environ.get("HOSTNAME") or gethostname(),
        machine=Path(environ["MOE_CAP_MACHINE"]) if environ.get("MOE_CAP_MACHINE") else None,
        model_token=environ.get("MOE_CAP_MODEL_TOKEN") or None,
        api_key=environ.get("MOE_CAP_API_KEY") or None,
        engines=read_engines_folder(environ),
    )

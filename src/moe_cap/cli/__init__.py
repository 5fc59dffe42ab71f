"""The command line, `moe-cap`: everything that the pages do, and the accounting, for scripts.

Exit codes: 0 it worked, 1 it failed, 2 the input cannot be used. Errors are one line on standard error; `--json` prints
exactly one JSON document on standard output.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import typer

from moe_cap import __version__
from moe_cap.errors import InvalidInputError, MoECapError

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the module whose `run` it is, and its line in the overview."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "serve": Command("moe_cap.cli.serve", "Serve the leaderboard in the browser."),
    "worker": Command("moe_cap.cli.worker", "Take requests from the queue and evaluate them."),
    "submit": Command("moe_cap.cli.submit", "Ask for a system to be measured."),
    "queue": Command("moe_cap.cli.queue", "Show the queue, or one request; cancel it."),
    "results": Command("moe_cap.cli.results", "Show the published results, or one of them."),
    "export": Command("moe_cap.cli.export", "Write the table of all results as CSV, Parquet or JSON."),
    "import": Command("moe_cap.cli.imports", "Enter results that were measured elsewhere, with their source."),
    "evaluate": Command("moe_cap.cli.evaluate", "Measure one system on this machine, without a queue."),
    "profile": Command("moe_cap.cli.profile", "Measure a deployment of your own; sweeps, table, plots."),
    "trace": Command("moe_cap.cli.trace", "Distinct experts of a stored routing trace, for any batch size."),
    "describe": Command("moe_cap.cli.describe", "Count a model's parameters and bytes from its config.json."),
    "step": Command("moe_cap.cli.step", "Bytes and FLOPs of one step of a model."),
    "cost": Command("moe_cap.cli.cost", "What a system costs to buy, to run and to rent."),
    "plan": Command("moe_cap.cli.plan", "Which devices can serve a model at a target, and at what cost."),
    "hardware": Command("moe_cap.cli.hardware", "List the known devices, or show one with its sources."),
}


def build_app(wanted: str | None) -> typer.Typer:
    """The program with one command loaded; of the others only the line in the overview, so that each starts fast."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__)
    for name, command in COMMANDS.items():
        run = importlib.import_module(command.module).run if name == wanted else _unloaded(name)
        app.command(name, short_help=command.summary)(run)
    return app


def _unloaded(name: str) -> Callable[[], None]:
    def run() -> None:
        raise AssertionError(f"{name} was not loaded")

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if arguments in (["--version"], ["-V"]):
        typer.echo(__version__)
        return 0
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    try:
        return build_app(wanted)(arguments, prog_name="moe-cap", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _complain(error.format_message(), BAD_INPUT)
    except InvalidInputError as error:
        return _complain(str(error), BAD_INPUT)
    except (MoECapError, OSError) as error:
        return _complain(str(error), FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _complain(message: str, code: int) -> int:
    typer.echo(f"moe-cap: {' '.join(message.split())}", err=True)
    return code

"""Programs whose result files can be imported: one file each, and one line here."""

from __future__ import annotations

from pathlib import Path

from moe_cap.errors import ResultError
from moe_cap.reported.reading import Reading, Tool, parse_json_objects
from moe_cap.reported.tools import moe_cap_v1, ollama, sglang_bench, vllm_bench

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        vllm_bench.TOOL,
        sglang_bench.TOOL,
        ollama.TOOL,
        moe_cap_v1.TOOL,
    )
}


def read_tool_file(path: Path) -> list[Reading]:
    """Read the points of one file, whichever tool wrote it.

    Raises:
        ResultError: no tool that is known wrote it, or what it wrote cannot be a result; names the file.
    """
    try:
        records = parse_json_objects(path.read_bytes())
        tool = next((tool for tool in TOOLS.values() if all(map(tool.wrote, records))), None)
        if tool is None:
            raise ResultError(f"no known tool wrote this; there are: {', '.join(TOOLS)}")
        return tool.parse(records, path)
    except ResultError as error:
        raise ResultError(f"{path}: {error}") from error
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultError(f"{path}: not as its tool writes it: {error!r}") from error

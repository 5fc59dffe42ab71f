"""A model as GGUF, converted once by llama.cpp's own converter and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from moe_cap.errors import EngineStartError
from moe_cap.measure.engines import inside
from moe_cap.measure.model_files import ModelFiles

LIMIT_S = 7200.0
LAST_LINES = 8
SOURCE = "source"
"""Folder of llama.cpp's source below the engine's environment: its converter is not part of an installation."""


def gguf_name(files: ModelFiles, kind: str) -> str:
    """Names the file by everything that decides what is in it: the model's fingerprint and the type of its tensors."""
    return f"{files.revision}.{kind}.gguf"


def convert(files: ModelFiles, kind: str, home: Path, target: Path, log: Path) -> None:
    """Write `target` unless it is there; a conversion that fails leaves nothing.

    Raises:
        EngineStartError: there is no converter, it does not know the model, or it took too long.
    """
    if target.is_file():
        return
    source = home / SOURCE
    if not (source / "convert_hf_to_gguf.py").is_file():
        raise EngineStartError(f"{target.name} is not there, and no convert_hf_to_gguf.py lies in {source} to write it")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    script = Path(inside.__file__).parent / "moe_cap_to_gguf.py"
    command = [sys.executable, str(script), str(source), str(files.folder), "--outfile", str(part), "--outtype", kind]
    try:
        with log.open("ab") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False)
        if done.returncode:
            said = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            raise EngineStartError(f"llama.cpp could not convert {files.name} to GGUF:\n" + "\n".join(said))
        part.replace(target)
    except subprocess.TimeoutExpired as error:
        raise EngineStartError(f"converting {files.name} to GGUF took longer than {LIMIT_S:g} s") from error
    finally:
        part.unlink(missing_ok=True)

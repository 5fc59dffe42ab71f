"""A model as GGUF: written once by llama.cpp's own converter and quantiser, and kept; or a file that somebody gives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moe_cap.errors import EngineStartError, SubmissionError
from moe_cap.measure.engines import inside
from moe_cap.measure.engines.gguf_tensors import GgufFile
from moe_cap.measure.engines.server import GRACE_S, clean_environment
from moe_cap.measure.guarded import GuardedProcess
from moe_cap.measure.model_files import GGUF, ModelFiles

LIMIT_S = 7200.0
LAST_LINES = 8
SOURCE = "source"
"""Folder of llama.cpp's source below the engine's environment: its converter is not part of an installation."""
QUANTISER = "bin/llama-quantize"

CONVERTED = {"fp32": "f32", "bf16": "bf16"}
K_QUANT_ROW = 256
"""Values in a block of the K-quants (`QK_K` of ggml-common.h): rows of another length fall back to larger types."""
UNQUANTISED = {"float32": "f32", "float16": "f16"}
"""What a quantised file is made from, by the checkpoint's dtype: nothing is rounded twice; bf16 for all others."""


FILE_TYPES = {
    "ALL_F32": "fp32", "MOSTLY_BF16": "bf16", "MOSTLY_F16": "fp16", "MOSTLY_Q8_0": "int8",
    "MOSTLY_Q4_0": "int4", "MOSTLY_Q4_1": "int4", "MOSTLY_Q4_K_S": "int4", "MOSTLY_Q4_K_M": "int4",
    "MOSTLY_IQ4_NL": "int4", "MOSTLY_IQ4_XS": "int4", "MOSTLY_MXFP4_MOE": "mxfp4",
}  # fmt: skip
"""What people call a file's type; all others have no name here."""


def gguf_kind(config: dict[str, Any], precision: str) -> str:
    """The type of file that people mean by a precision.

    int8 is Q8_0, int4 is Q4_K_M, a mixture and the usual choice. Where the hidden size is no multiple of 256, Q4_K_M
    has next to no 4-bit tensor (they fall back to Q5_0 and Q8_0), so int4 is Q4_0 there, whose blocks are 32 long.
    """
    if precision == "int4":
        hidden = config.get("text_config", config).get("hidden_size") or 0
        return "q4_k_m" if hidden % K_QUANT_ROW == 0 else "q4_0"
    return "q8_0" if precision == "int8" else CONVERTED[precision]


def gguf_name(files: ModelFiles, kind: str) -> str:
    """Names the file by everything that decides what is in it: the model's fingerprint and the type of its tensors."""
    return f"{files.revision}.{kind}.gguf"


def make_gguf(files: ModelFiles, kind: str, home: Path, target: Path, log: Path) -> None:
    """Write `target` unless it is there; whatever fails leaves nothing.

    A quantised file is made from one that holds the checkpoint's own numbers, which does not stay.

    Raises:
        EngineStartError: a tool is missing, does not know the model, or took too long.
    """
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target.parent)
    if kind in {*CONVERTED.values()}:
        with _appearing(target) as part:
            _convert(files, kind, home, part, log)
        return
    quantiser = home / QUANTISER
    if not quantiser.is_file():
        raise EngineStartError(f"{target.name} is not there, and {quantiser} is not there to write it")
    dtype = str(files.config.get("dtype") or files.config.get("torch_dtype"))
    plain = target.with_suffix(f".{os.getpid()}.plain")
    try:
        _convert(files, UNQUANTISED.get(dtype, "bf16"), home, plain, log)
        with _appearing(target) as part:
            threads = str(max(1, len(os.sched_getaffinity(0)) - 1))
            command = [str(quantiser), str(plain), str(part), kind.upper(), threads]
            _run(command, f"quantise {files.name} to {kind.upper()}", log, {"LD_LIBRARY_PATH": str(home / "bin")})
    finally:
        plain.unlink(missing_ok=True)


def given_gguf(files: ModelFiles) -> Path | None:
    """The GGUF file that a person gave as the model; the first of several parts."""
    return next((path for path in files.weights if path.suffix == GGUF), None)


def refuse_other_type(file: GgufFile, precision: str, name: str) -> None:
    """Refuse to call a GGUF file by another precision than it has.

    Raises:
        SubmissionError: at the field `precision`.
    """
    held = FILE_TYPES.get(str(file.file_type))
    if held != precision:
        raise SubmissionError(
            f"{name} is {file.file_type or 'of a type that it does not tell'} and would run so: it cannot be measured"
            f" as {precision}; {f'ask for {held}' if held else 'such a type has no name among the precisions'}",
            field="precision",
        )


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A name to write under, which becomes the target only when everything went well."""
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _convert(files: ModelFiles, kind: str, home: Path, target: Path, log: Path) -> None:
    source = home / SOURCE
    if not (source / "convert_hf_to_gguf.py").is_file():
        raise EngineStartError(f"{files.name} is not there as GGUF, and no convert_hf_to_gguf.py lies in {source}")
    script = Path(inside.__file__).parent / "moe_cap_to_gguf.py"
    command = [sys.executable, str(script), str(source), str(files.folder), "--outfile", str(target), "--outtype", kind]
    _run(command, f"convert {files.name} to GGUF", log, {})


def _run(command: list[str], doing: str, log: Path, added: dict[str, str]) -> None:
    """Run a tool as servers are run: without our secrets, and never longer than we are there ourselves."""
    process = GuardedProcess(
        command,
        log=log,
        ending=log.with_suffix(".ending.json"),
        environ=clean_environment(os.environ, added),
        grace_s=GRACE_S,
    )
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise EngineStartError(f"llama.cpp could not {doing} within {LIMIT_S:g} s") from error
    finally:
        process.stop()
    if process.read_ending().status != 0:
        said = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        raise EngineStartError(f"llama.cpp could not {doing}:\n" + "\n".join(said))


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left: whoever still writes has done so within the limits of both tools."""
    oldest_s = time.time() - 2 * LIMIT_S
    for path in (*folder.glob("*.part"), *folder.glob("*.plain")):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest_s:
                path.unlink()

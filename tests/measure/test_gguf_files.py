"""llama.cpp's tools without llama.cpp: what they are given, what they leave, and that nothing of them outlives us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from moe_cap.errors import EngineStartError
from moe_cap.measure.engines import gguf_files
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.backend.conftest import is_alive, read_pid, wait_for


def test_a_failed_conversion_leaves_no_file(tiny_files: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/convert_hf_to_gguf.py").write_text("raise SystemExit('no such architecture')")
    target = tmp_path / "gguf" / gguf_files.gguf_name(tiny_files, "f32")
    with pytest.raises(EngineStartError, match="could not convert"):
        gguf_files.make_gguf(tiny_files, "f32", tmp_path, target, tmp_path / "log")
    assert not list(target.parent.iterdir())


CONVERTER = "import sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(sys.argv[-1])"
QUANTISER = """#!/bin/sh
echo "quantised $3 from $(cat "$1")" > "$2"
"""


def tools(home: Path, quantiser: str) -> None:
    (home / "source/conversion").mkdir(parents=True)
    (home / "source/conversion/base.py").write_text("class TextModel:\n    get_vocab_base_pre = None\n")
    (home / "source/convert_hf_to_gguf.py").write_text(CONVERTER)
    (home / "bin").mkdir()
    (home / "bin/llama-quantize").write_text(quantiser)
    (home / "bin/llama-quantize").chmod(0o755)


@pytest.mark.parametrize(("dtype", "plain"), [("float32", "f32"), ("bfloat16", "bf16"), ("float16", "f16")])
def test_a_quantised_file_is_made_from_the_checkpoints_own_numbers_alone(
    tiny_files: ModelFiles, tmp_path: Path, dtype: str, plain: str
) -> None:
    tools(tmp_path, QUANTISER)
    files, target = replace(tiny_files, config={**tiny_files.config, "dtype": dtype}), tmp_path / "gguf/x.q8_0.gguf"
    gguf_files.make_gguf(files, "q8_0", tmp_path, target, tmp_path / "log")
    assert target.read_text() == f"quantised Q8_0 from {plain}\n"
    assert list(target.parent.iterdir()) == [target]


def test_a_quantiser_that_fails_leaves_no_file(tiny_files: ModelFiles, tmp_path: Path) -> None:
    tools(tmp_path, "#!/bin/sh\necho half > $2; echo cannot quantise that; exit 1\n")
    target = tmp_path / "gguf/x.q4_0.gguf"
    with pytest.raises(EngineStartError, match="cannot quantise that"):
        gguf_files.make_gguf(tiny_files, "q4_0", tmp_path, target, tmp_path / "log")
    assert not list(target.parent.iterdir())


def test_without_a_quantiser_the_error_says_where_it_should_lie(tiny_files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="bin/llama-quantize is not there"):
        gguf_files.make_gguf(tiny_files, "q4_0", tmp_path, tmp_path / "gguf/x.gguf", tmp_path / "log")


TRUSTING = """
import sys
from transformers import AutoConfig, AutoTokenizer

AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
"""
OWN_CODE = """
from pathlib import Path
from transformers import Qwen3MoeConfig, PreTrainedTokenizerFast

Path({marker!r}).touch()

class Config(Qwen3MoeConfig):
    pass

class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def test_no_code_of_the_model_is_run(copied_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of the converter's models read their tokenizer with `trust_remote_code=True`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # transformers copies such code below it
    marker = tmp_path / "ran"
    (copied_folder / "own.py").write_text(OWN_CODE.format(marker=str(marker)))
    for name, entry in (("config.json", {"AutoConfig": "own.Config"}), ("tokenizer_config.json", None)):
        path = copied_folder / name
        told = {**json.loads(path.read_text()), "auto_map": entry or {"AutoTokenizer": [None, "own.Tokenizer"]}}
        path.write_text(json.dumps(told))
    tools(tmp_path, QUANTISER)
    (tmp_path / "source/convert_hf_to_gguf.py").write_text(TRUSTING + CONVERTER)
    target = tmp_path / "gguf/x.gguf"
    gguf_files.make_gguf(find_model(Submission(model=str(copied_folder))), "f32", tmp_path, target, tmp_path / "log")
    assert target.is_file(), "the classes of transformers read it"
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_the_tools_get_no_secret_and_no_network(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for secret in ("HF_TOKEN", "MOE_CAP_API_KEY", "MOE_CAP_MODEL_TOKEN"):
        monkeypatch.setenv(secret, "hf_secret")
    tools(tmp_path, '#!/bin/sh\ncat "$1" > "$2"; env >> "$2"\n')
    told = (
        "import json, os, sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(json.dumps({**os.environ}))"
    )
    (tmp_path / "source/convert_hf_to_gguf.py").write_text(told)
    target = tmp_path / "gguf/x.gguf"
    gguf_files.make_gguf(tiny_files, kind, tmp_path, target, tmp_path / "log")
    assert "hf_secret" not in target.read_text()
    assert '"HF_HUB_OFFLINE": "1"' in target.read_text()


WAITING = "echo $$ > {pid_file}; sleep 120"


def test_a_tool_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_files, "LIMIT_S", 3.0)
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", WAITING.format(pid_file=pid_file)]
    with pytest.raises(EngineStartError, match="could not convert x to GGUF within 3 s"):
        gguf_files._run(command, "convert x to GGUF", tmp_path / "log", {})
    assert not is_alive(read_pid(pid_file))


def test_a_tool_ends_with_who_started_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", WAITING.format(pid_file=pid_file)]
    started = f"_run({command!r}, 'wait', Path({str(tmp_path / 'log')!r}), {{}})"
    code = f"from pathlib import Path\nfrom moe_cap.measure.engines.gguf_files import _run\n{started}"
    owner = subprocess.Popen([sys.executable, "-c", code])
    pid = read_pid(pid_file)
    owner.kill()
    owner.wait()
    wait_for(lambda: not is_alive(pid))


def test_what_a_killed_process_left_is_removed_and_what_is_written_now_stays(
    tiny_files: ModelFiles, tmp_path: Path
) -> None:
    tools(tmp_path, QUANTISER)
    target = tmp_path / "gguf/x.q8_0.gguf"
    target.parent.mkdir()
    left = [target.with_name(name) for name in ("y.f32.17.part", "y.q8_0.17.plain")]
    for path in (*left, target.with_name("z.f32.18.part")):
        path.touch()
    for path in left:
        os.utime(path, (0, 0))
    gguf_files.make_gguf(tiny_files, "q8_0", tmp_path, target, tmp_path / "log")
    assert {path.name for path in target.parent.iterdir()} == {"x.q8_0.gguf", "z.f32.18.part"}


def test_a_converted_model_is_not_converted_again(tiny_files: ModelFiles, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    target.touch()
    gguf_files.make_gguf(tiny_files, "f32", tmp_path / "nowhere", target, tmp_path / "log")

"""A `.gguf` file as the model of a run: what must lie beside it, who reads it, and by which name it may go."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from moe_cap.errors import SubmissionError
from moe_cap.measure.engines.gguf_files import FILE_TYPES, given_gguf, refuse_other_type
from moe_cap.measure.engines.gguf_tensors import GgufFile
from moe_cap.measure.engines.llama_cpp import ENGINE
from moe_cap.measure.model_files import find_description, find_model
from moe_cap.offerings import ENGINES
from moe_cap.preflight.model import find_folder
from moe_cap.submission import Submission


def asked(path: Path, engine: str = "llama-cpp") -> Submission:
    return Submission(model=str(path), engine=engine, precision="int4")


@pytest.fixture
def given(tiny_folder: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / name, tmp_path)
    (tmp_path / "some-Q4_K_M.gguf").write_bytes(b"weights")
    return tmp_path / "some-Q4_K_M.gguf"


def test_a_file_is_a_model_with_what_lies_beside_it(given: Path) -> None:
    files = find_model(asked(given))
    assert (files.name, files.folder, files.weights) == ("some-Q4_K_M", given.parent, (given,))
    assert files.config["model_type"] == "qwen3_moe"
    assert len(files.revision) == 64
    given.write_bytes(b"other weights")
    assert find_model(asked(given)).revision != files.revision


def test_its_description_alone_has_no_weights(given: Path) -> None:
    described = find_description(asked(given))
    assert (described.weights, described.revision, described.folder) == ((), "", given.parent)


def test_the_server_gets_the_very_file(given: Path) -> None:
    spec = ENGINE.launch_spec(find_model(asked(given)), "int4")
    assert spec.argv[spec.argv.index("--model") + 1] == str(given)
    assert ENGINE.gguf(spec) == given == given_gguf(spec.files)


@pytest.mark.parametrize("absent", ["config.json", "tokenizer.json"])
def test_a_file_alone_is_not_enough_and_the_error_says_what_to_fetch(given: Path, absent: str) -> None:
    (given.parent / absent).unlink()
    with pytest.raises(SubmissionError, match="hf download") as refused:
        find_model(asked(given))
    assert refused.value.field == "model"


def test_a_split_file_needs_all_its_parts(given: Path) -> None:
    first, second = (given.with_name(f"x-0000{number}-of-00002.gguf") for number in (1, 2))
    first.touch()
    with pytest.raises(SubmissionError, match=r"x-00002-of-00002\.gguf"):
        find_model(asked(first))
    second.touch()
    assert find_model(asked(first)).weights == (first, second)
    assert given_gguf(find_model(asked(first))) == first


@pytest.mark.parametrize("engine", [name for name, offer in ENGINES.items() if ".gguf" not in offer.reads])
def test_other_engines_refuse_it_and_name_those_that_do_not(given: Path, engine: str) -> None:
    with pytest.raises(SubmissionError, match="llama-cpp") as refused:
        find_model(asked(given, engine))
    assert refused.value.field == "engine"


def test_a_file_that_is_not_there(given: Path) -> None:
    given.unlink()
    with pytest.raises(SubmissionError, match="no file some-Q4_K_M"):
        find_model(asked(given))


def test_a_form_sends_people_to_the_command_line(given: Path) -> None:
    with pytest.raises(SubmissionError, match="moe-cap profile --engine llama-cpp"):
        find_folder(asked(given))


@pytest.mark.parametrize(("kind", "precision"), FILE_TYPES.items())
def test_a_file_goes_by_its_own_precision_alone(kind: str, precision: str) -> None:
    file = GgufFile("qwen3moe", kind, {})
    refuse_other_type(file, precision, "x.gguf")
    other = "int8" if precision == "int4" else "int4"
    with pytest.raises(SubmissionError, match=f"ask for {precision}") as refused:
        refuse_other_type(file, other, "x.gguf")
    assert refused.value.field == "precision"


@pytest.mark.parametrize("kind", ["MOSTLY_Q5_K_M", "MOSTLY_Q2_K", None])
def test_types_without_a_name_among_the_precisions_are_refused(kind: str | None) -> None:
    with pytest.raises(SubmissionError, match="no name among the precisions"):
        refuse_other_type(GgufFile("qwen3moe", kind, {}), "int4", "x.gguf")

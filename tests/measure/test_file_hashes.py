"""A hash names what files hold, and unchanged files are read once."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from moe_cap.measure import file_hashes
from moe_cap.measure.file_hashes import hash_files


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"shard-{number}.safetensors" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000)
    return paths


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    really = file_hashes._read
    monkeypatch.setattr(file_hashes, "_read", lambda path: names.append(path.name) or really(path))
    return names


def one_after_the_other(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def test_the_hash_is_that_of_one_file_after_the_other(shards: list[Path]) -> None:
    assert hash_files(shards) == one_after_the_other(shards)
    assert hash_files(shards[::-1]) == one_after_the_other(shards[::-1]) != hash_files(shards)


def test_files_are_read_side_by_side(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(len(shards), timeout=60)
    monkeypatch.setattr(file_hashes, "_read", lambda path: bytes([together.wait()]) and b"")
    assert len(hash_files(shards)) == 64


def test_unchanged_files_are_read_once(shards: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "RACY_NS", 0)
    first = hash_files(shards)
    assert hash_files(shards) == first
    assert sorted(read) == [path.name for path in shards]
    shards[2].write_bytes(b"longer" * 1000)
    assert hash_files(shards) == one_after_the_other(shards) != first
    assert read[len(shards) :] == [shards[2].name]


def test_a_file_that_was_changed_just_now_is_read_again(shards: list[Path], read: list[str]) -> None:
    assert hash_files(shards) == hash_files(shards)
    assert len(read) == 2 * len(shards)

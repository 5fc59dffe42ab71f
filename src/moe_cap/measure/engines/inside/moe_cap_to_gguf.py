"""llama.cpp's own converter, taught two kinds of tokenizer that it does not know by their hash.

Run as a script: `python moe_cap_to_gguf.py LLAMA_CPP_SOURCE MODEL --outfile FILE --outtype TYPE`. llama.cpp recognises
a tokenizer by the hash of what it makes of one text and refuses all others. Two of those can be told from
tokenizer.json to be exactly what llama.cpp calls `gpt-2`: byte-level BPE with GPT-2's own splitting, and a vocabulary
of single characters without merges. Weights are converted by the converter alone, and no code of the model is run.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoTokenizer

GPT2 = "gpt-2"
NEVER_MERGED = ["<pad> <pad>"]
"""llama.cpp wants a list of merges; this one joins two texts that no character is."""


def splits_as_gpt2(tokenizer: dict[str, Any]) -> bool:
    """Byte-level BPE whose text is split by GPT-2's expression and nothing else."""
    before = tokenizer.get("pre_tokenizer") or {}
    plain = not tokenizer.get("normalizer") and before.get("type") == "ByteLevel"
    return plain and before.get("use_regex", True) and not before.get("add_prefix_space", True)


def spells_characters(tokenizer: dict[str, Any]) -> bool:
    """A token for each character: how text is split makes no difference."""
    model, added = tokenizer["model"], {token["content"] for token in tokenizer.get("added_tokens", ())}
    texts = set(model.get("vocab", ())) - added
    return not tokenizer.get("normalizer") and not model.get("merges") and all(len(text) == 1 for text in texts)


def in_bytes(text: str) -> str:
    """A text as byte-level BPE writes it: one visible character for each byte."""
    return "".join(piece for piece, _ in ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text))


def teach(model: Any, tokenizer: dict[str, Any]) -> None:
    """Have the converter's text model accept this tokenizer if it is of the two kinds and not known anyway."""
    known: Callable[[Any, Any], str] = model.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, loaded: Any) -> str:
        try:
            return known(self, loaded)
        except NotImplementedError:
            if splits_as_gpt2(tokenizer) or spells_characters(tokenizer):
                return GPT2
            raise

    model.get_vocab_base_pre = get_vocab_base_pre
    if spells_characters(tokenizer):
        _teach_characters(model)


def _teach_characters(model: Any) -> None:
    read, write = model.get_vocab_base, model._set_vocab_gpt2

    def get_vocab_base(self: Any) -> tuple[list[str], list[int], str]:
        texts, kinds, before = read(self)
        return [in_bytes(text) if len(text) == 1 else text for text in texts], kinds, before

    def set_vocab(self: Any) -> None:
        write(self)
        self.gguf_writer.add_token_merges(NEVER_MERGED)

    model.get_vocab_base, model._set_vocab_gpt2 = get_vocab_base, set_vocab


def refuse_own_code() -> None:
    """Have every configuration and tokenizer read by the classes of transformers, whatever the converter asks for.

    It trusts the code that comes with a model, and the model may be anybody's submission.
    """
    for auto in (AutoConfig, AutoTokenizer):
        _distrust(auto)


def _distrust(auto: Any) -> None:
    read: Callable[..., Any] = auto.from_pretrained

    def from_pretrained(*given: Any, **named: Any) -> Any:
        return read(*given, **{**named, "trust_remote_code": False})

    auto.from_pretrained = from_pretrained


def main(source: str, model: str, *rest: str) -> None:
    """Convert one model."""
    refuse_own_code()
    sys.path[:0] = [f"{source}/gguf-py", source]
    tokenizer = Path(model, "tokenizer.json")
    if tokenizer.is_file():
        teach(importlib.import_module("conversion.base").TextModel, json.loads(tokenizer.read_text(encoding="utf-8")))
    sys.argv = ["convert_hf_to_gguf.py", model, *rest]
    runpy.run_path(f"{source}/convert_hf_to_gguf.py", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])

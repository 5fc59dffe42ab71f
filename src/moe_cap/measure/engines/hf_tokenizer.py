"""The tokenizer that lies beside a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer

from moe_cap.errors import EngineStartError
from moe_cap.measure.model_files import ModelFiles


class HubTokenizer:
    """A transformers tokenizer behind the `Tokenizer` protocol; special tokens as lm-eval treats them."""

    def __init__(self, files: ModelFiles) -> None:
        try:
            self.inner: Any = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise EngineStartError(f"{files.name} has no tokenizer that can be loaded: {error}") from error
        if self.inner.eos_token_id is None:
            raise EngineStartError(f"the tokenizer of {files.name} has no end-of-sequence token")
        self.name = files.name

    @property
    def end_token(self) -> int:
        """Ends a text."""
        return int(self.inner.eos_token_id)

    @property
    def prefix_token(self) -> int:
        """Beginning of sequence where there is one, otherwise the end token."""
        begin = self.inner.bos_token_id
        return self.end_token if begin is None else int(begin)

    @property
    def pad_token(self) -> int:
        """Fills shorter rows; never attended to."""
        pad = self.inner.pad_token_id
        return self.end_token if pad is None else int(pad)

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        """No second beginning-of-sequence token where the text already starts with it."""
        named = {} if special_tokens is None else {"add_special_tokens": special_tokens}
        begin = self.inner.bos_token
        if special_tokens is None and begin and text.startswith(begin):
            named = {"add_special_tokens": False}
        return list(self.inner.encode(text, **named))

    def decode(self, tokens: Sequence[int], *, special_tokens: bool = False) -> str:
        """Text of token ids."""
        return str(self.inner.decode(list(tokens), skip_special_tokens=not special_tokens))

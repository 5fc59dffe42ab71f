"""How far back attention looks: which cached positions a step reads, and how many pairs it scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Reach(Protocol):
    """The positions that a token attends to, itself included.

    `context` is what the last of `new` tokens of a sequence attends to in full attention, so the first of them
    attends to `context - new + 1`.
    """

    def cached(self, context: int) -> int:
        """Positions that a cache must keep for a sequence of `context` tokens."""

    def read(self, context: int, new: int) -> int:
        """Distinct positions that the `new` tokens attend to: what an ideal kernel reads once."""

    def attended(self, context: int, new: int) -> int:
        """Pairs of (new token, attended position)."""


def _causal_pairs(context: int, new: int) -> int:
    """Sum of context - new + 1, ..., context."""
    return new * context - new * (new - 1) // 2


@dataclass(frozen=True, slots=True)
class Full:
    """Every earlier position."""

    def cached(self, context: int) -> int:
        """All of them."""
        return context

    def read(self, context: int, new: int) -> int:
        """All of them, whatever the chunk."""
        return context if new else 0

    def attended(self, context: int, new: int) -> int:
        """The causal triangle of a prefill, the whole context of a decode step."""
        return _causal_pairs(context, new)


@dataclass(frozen=True, slots=True)
class Window:
    """The last `size` positions (sliding-window attention)."""

    size: int

    def cached(self, context: int) -> int:
        """No more than the window."""
        return min(context, self.size)

    def read(self, context: int, new: int) -> int:
        """The union of the windows of all new tokens."""
        return min(context, self.size + new - 1) if new else 0

    def attended(self, context: int, new: int) -> int:
        """The triangle until the window is full, then `size` for every token."""
        first = context - new + 1
        growing = min(max(self.size - first, 0), new)
        return _causal_pairs(first + growing - 1, growing) + (new - growing) * self.size


@dataclass(frozen=True, slots=True)
class Chunk:
    """The positions of the token's own chunk of `size` (Llama 4's local attention)."""

    size: int

    def cached(self, context: int) -> int:
        """No more than a chunk: the cache slides, although attention starts over at every boundary."""
        return min(context, self.size)

    def read(self, context: int, new: int) -> int:
        """From the start of the first new token's chunk."""
        return context - (context - new) // self.size * self.size if new else 0

    def attended(self, context: int, new: int) -> int:
        """Whole triangles of the chunks in between, partial ones at both ends."""
        return self._pairs_before(context) - self._pairs_before(context - new)

    def _pairs_before(self, position: int) -> int:
        whole, rest = divmod(position, self.size)
        return whole * _causal_pairs(self.size, self.size) + _causal_pairs(rest, rest)


@dataclass(frozen=True, slots=True)
class Strided:
    """One compressed entry for every `stride` positions, of which at most `limit` are attended to (DeepSeek-V4)."""

    stride: int
    limit: int | None = None

    def cached(self, context: int) -> int:
        """Whole strides only."""
        return context // self.stride

    def read(self, context: int, new: int) -> int:
        """All entries, or what the new tokens can pick at most."""
        entries = context // self.stride
        return entries if self.limit is None else min(entries, self.limit * new)

    def attended(self, context: int, new: int) -> int:
        """Entries that exist when each new token is computed."""
        return self._pairs_until(context) - self._pairs_until(context - new)

    def _pairs_until(self, position: int) -> int:
        full = position if self.limit is None else min(position, self.limit * self.stride)
        whole, rest = divmod(full, self.stride)
        growing = self.stride * whole * (whole - 1) // 2 + whole * (rest + 1)
        return growing + (position - full) * (self.limit or 0)


@dataclass(frozen=True, slots=True)
class Selected:
    """At most `size` positions that an indexer picks among all earlier ones (DeepSeek sparse attention)."""

    size: int

    def cached(self, context: int) -> int:
        """All: any position may be picked later."""
        return context

    def read(self, context: int, new: int) -> int:
        """`size` per token and no more than there are: the upper bound of the union, exact for a decode step."""
        return min(context, self.size * new)

    def attended(self, context: int, new: int) -> int:
        """As many pairs as a window of that size has."""
        return Window(self.size).attended(context, new)


def both_sides(tokens: int, window: int | None) -> int:
    """Pairs of tokens of one text that see each other when all look `window` tokens to either side (None: all)."""
    reach = tokens - 1 if window is None else min(window, tokens - 1)
    return tokens + reach * (2 * tokens - reach - 1) if tokens else 0

"""How a layer lets tokens see each other: the closed set of forms, their weights, caches and score FLOPs."""

from __future__ import annotations

from dataclasses import dataclass, field

from moe_cap.architecture.reach import Full, Reach, Strided, Window
from moe_cap.architecture.weights import Weight


@dataclass(frozen=True, slots=True)
class Mixer:
    """What the accounting asks of every form; a bare one lets no token see another (Nemotron-H's feed-forward layers).

    Elements are values, whatever their storage width.
    """

    weights: tuple[Weight, ...]

    @property
    def kv_elements_per_token(self) -> int:
        """Values that a token adds to the cache (0: it keeps a state of fixed size, or another layer's cache)."""
        return 0

    @property
    def state_elements(self) -> int:
        """Values of recurrent state that a sequence keeps whatever its length."""
        return 0

    @property
    def conv_elements(self) -> int:
        """Values of a convolution's window that a sequence keeps, in the activations' format."""
        return 0

    @property
    def tp_ways(self) -> int | None:
        """Into how many slices tensor parallelism can cut the cache (None: any number)."""
        return None

    def kv_cached(self, context: int) -> int:
        """Values that the cache of a sequence of `context` tokens holds."""
        return 0

    def kv_read(self, context: int, new: int) -> int:
        """Values that a step reads from the cache for a sequence."""
        return 0

    def score_flops(self, context: int, new: int) -> int:
        """FLOPs between tokens (QK^T and AV, or the recurrence), beside the matrices."""
        return 0

    def source_read(self, source: int, new: int) -> int:
        """Values that a step reads for a sequence from what an encoder left of its source."""
        return 0

    def source_score_flops(self, source: int, new: int) -> int:
        """FLOPs between a sequence's new tokens and its source."""
        return 0


@dataclass(frozen=True, slots=True)
class Indexer:
    """The small attention that picks the positions of a sparse one (DeepSeek-V3.2's lightning indexer).

    Attributes:
        num_heads: query heads.
        head_dim: width of the one key that it caches per position.
        sums_heads: whether a weighted sum over heads makes the score (DeepSeek), or their maximum (MiniMax).
        pool: positions that share a key (GLM-5.3); a key exists once all of them do.
    """

    num_heads: int
    head_dim: int
    sums_heads: bool = True
    pool: int = 1

    @property
    def elements_per_token(self) -> int:
        """A token's share of a key."""
        return self.head_dim // self.pool

    def cached(self, context: int) -> int:
        """Values of all keys."""
        return self.head_dim * (context // self.pool)

    def read(self, context: int, new: int) -> int:
        """Every key, as soon as there is something to score."""
        return self.cached(context) if new else 0

    def score_flops(self, context: int, new: int) -> int:
        """2 for QK^T over every earlier key, 2 for the sum over heads."""
        return 2 * self.num_heads * (self.head_dim + self.sums_heads) * Strided(self.pool).attended(context, new)


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """A bias per head and distance, mixed for each query from `rank` learned profiles over `extent` distances."""

    rank: int
    extent: int

    def score_flops(self, context: int, new: int) -> int:
        """Of one head: 2 for each product of a profile's value at a distance that occurs."""
        return 2 * self.rank * Window(self.extent).attended(context, new)


@dataclass(frozen=True, slots=True)
class Attention(Mixer):
    """Softmax attention with keys and values per KV head: MHA, GQA, MQA; full, sliding, chunked; sinks or not.

    Attributes:
        num_kv_heads: heads in the cache.
        qk_head_dim: width of a query and of a key.
        v_head_dim: width of a value.
        reach: how far back it looks.
        shares_cache: True for a layer that reads the cache of an earlier one and writes none (cross-layer sharing).
        indexer: picks the positions of a sparse layer, and caches a key per token for that.
        window_elements: values of the windows of convolutions around it, kept whatever the context.
        bias: what is added to the scores by distance.
    """

    num_heads: int
    num_kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    reach: Reach = field(default_factory=Full)
    shares_cache: bool = False
    indexer: Indexer | None = None
    window_elements: int = 0
    bias: RelativeBias | None = None

    @property
    def _elements(self) -> int:
        return self.num_kv_heads * (self.qk_head_dim + self.v_head_dim)

    @property
    def conv_elements(self) -> int:
        """The convolutions' windows."""
        return self.window_elements

    @property
    def kv_elements_per_token(self) -> int:
        """A key and a value per KV head."""
        return 0 if self.shares_cache else self._elements + (self.indexer.elements_per_token if self.indexer else 0)

    @property
    def tp_ways(self) -> int | None:
        """KV heads: with more ranks than that, they are replicated."""
        return self.num_kv_heads

    def kv_cached(self, context: int) -> int:
        """Within reach only."""
        own = 0 if self.shares_cache else self._elements * self.reach.cached(context)
        return own + (self.indexer.cached(context) if self.indexer else 0)

    def kv_read(self, context: int, new: int) -> int:
        """Also where the cache is another layer's: it is read again."""
        index = self.indexer.read(context, new) if self.indexer else 0
        return self._elements * self.reach.read(context, new) + index

    def score_flops(self, context: int, new: int) -> int:
        """2 for QK^T and 2 for AV, what the indexer scores, and the bias."""
        index = self.indexer.score_flops(context, new) if self.indexer else 0
        index += self.num_heads * self.bias.score_flops(context, new) if self.bias else 0
        return 2 * self.num_heads * (self.qk_head_dim + self.v_head_dim) * self.reach.attended(context, new) + index


@dataclass(frozen=True, slots=True)
class LatentAttention(Mixer):
    """Multi-head latent attention (MLA, DeepSeek-V2): one compressed vector and one rotary key per token are cached.

    Score FLOPs are the model's own (non-absorbed) form: keys of nope + rope, values of v_head_dim, per head.

    Attributes:
        shares_cache: True for a layer that reads the latents of an earlier one and writes none (cross-layer sharing).
    """

    num_heads: int
    kv_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    reach: Reach = field(default_factory=Full)
    indexer: Indexer | None = None
    shares_cache: bool = False

    @property
    def kv_elements_per_token(self) -> int:
        """The latent, the rotary key, and the indexer's key."""
        own = 0 if self.shares_cache else self.kv_rank + self.qk_rope_head_dim
        return own + (self.indexer.elements_per_token if self.indexer else 0)

    @property
    def tp_ways(self) -> int | None:
        """One latent serves all heads, so every tensor-parallel rank keeps a copy."""
        return 1

    def kv_cached(self, context: int) -> int:
        """Latents within reach, index keys of all."""
        index = self.indexer.cached(context) if self.indexer else 0
        own = 0 if self.shares_cache else self.kv_rank + self.qk_rope_head_dim
        return own * self.reach.cached(context) + index

    def kv_read(self, context: int, new: int) -> int:
        """The picked latents, and every index key."""
        index = self.indexer.read(context, new) if self.indexer else 0
        return (self.kv_rank + self.qk_rope_head_dim) * self.reach.read(context, new) + index

    def score_flops(self, context: int, new: int) -> int:
        """Attention over what is picked, and the indexer over everything."""
        width = self.qk_nope_head_dim + self.qk_rope_head_dim + self.v_head_dim
        index = self.indexer.score_flops(context, new) if self.indexer else 0
        return 2 * self.num_heads * width * self.reach.attended(context, new) + index


@dataclass(frozen=True, slots=True)
class CompressedAttention(Mixer):
    """DeepSeek-V4's attention: a short window of single vectors that are key and value at once, and compressed entries.

    Attributes:
        head_dim: width of an entry, and of a query.
        window: reach of the uncompressed part.
        compressed: the entries that stand for many positions each; None in a layer that only slides.
        index_heads: query heads of the indexer that picks among them; 0 where all are attended to.
        index_dim: width of an index key, one per compressed entry.
    """

    num_heads: int
    head_dim: int
    window: Window
    compressed: Strided | None = None
    index_heads: int = 0
    index_dim: int = 0

    @property
    def kv_elements_per_token(self) -> int:
        """An entry in the window, and the token's share of a compressed entry and of its index key."""
        share = (self.head_dim + self.index_dim) // self.compressed.stride if self.compressed else 0
        return self.head_dim + share

    @property
    def tp_ways(self) -> int | None:
        """One entry serves all heads, so every tensor-parallel rank keeps a copy."""
        return 1

    def kv_cached(self, context: int) -> int:
        """The window, every compressed entry, every index key."""
        entries = self.compressed.cached(context) if self.compressed else 0
        return self.head_dim * self.window.cached(context) + (self.head_dim + self.index_dim) * entries

    def kv_read(self, context: int, new: int) -> int:
        """The window, the entries that are attended to, every index key."""
        local = self.head_dim * self.window.read(context, new)
        if self.compressed is None or not new:
            return local
        index = self.index_dim * self.compressed.cached(context)
        return local + self.head_dim * self.compressed.read(context, new) + index

    def score_flops(self, context: int, new: int) -> int:
        """2 for QK^T and 2 for AV over both, and the indexer's QK^T and sum over heads."""
        pairs = self.window.attended(context, new)
        if self.compressed is None:
            return 4 * self.num_heads * self.head_dim * pairs
        pairs += self.compressed.attended(context, new)
        width = self.index_dim + bool(self.index_dim)
        index = 2 * self.index_heads * width * Strided(self.compressed.stride).attended(context, new)
        return 4 * self.num_heads * self.head_dim * pairs + index

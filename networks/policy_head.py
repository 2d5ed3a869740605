"""The autoregressive policy head (paper, Supplementary A.1.2, Extended Data Fig. 4).

A transformer decoder over the tokens of an action. Its cross-attention keys and values are computed
once for each state and shared by all actions; those of earlier tokens are kept in a cache. Sampling
and teacher forcing run the same two functions, `start` and `extend`, so their probabilities agree.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32

from networks.attention import BlockConfig, FromHeads, ToHeads, attend


class KeyValues(NamedTuple):
    """Keys and values of each layer: (L, M, heads, d), or (L, A, k, heads, d) in a cache."""

    keys: Float[Array, "*shape heads d"]
    values: Float[Array, "*shape heads d"]


class DecoderLayer(nn.Module):
    """Causal self-attention and cross-attention, as the paper arranges them.

    Each is ``x = LN(x); x = x + dropout(block(x))``, and the block has its own skip connections and
    MLP: a layer holds two MLPs, and its input passes through twice.

    Attributes:
        block: sizes of the attention blocks.
        dropout: share of features dropped, where there is a key "dropout".
    """

    block: BlockConfig
    dropout: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "A n P"],
        memory: KeyValues,
        cache: KeyValues,
        position: Int32[Array, ""],
    ) -> tuple[Float[Array, "A n P"], KeyValues]:
        """Advances A sequences by n tokens.

        Args:
            x: new tokens, (A, n, P).
            memory: of this layer, (M, heads, d) each.
            cache: of this layer, (A, k, heads, d) each.
            position: index of the first new token, int32 scalar.

        Returns:
            The tokens, (A, n, P), and the cache with their keys and values.
        """
        drop = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))
        x = nn.LayerNorm(dtype=self.block.dtype)(x)
        query, key, value = ToHeads(self.block, 3)(x)
        cache = KeyValues(
            jax.lax.dynamic_update_slice_in_dim(cache.keys, key, position, axis=1),
            jax.lax.dynamic_update_slice_in_dim(cache.values, value, position, axis=1),
        )
        seen = jnp.arange(cache.keys.shape[1]) <= position + jnp.arange(x.shape[1])[:, None]
        x = x + drop(FromHeads(self.block)(x, attend(query, *cache, seen)))

        x = nn.LayerNorm(dtype=self.block.dtype)(x)
        (query,) = ToHeads(self.block, 1)(x)
        # All tokens of all actions ask the same memory: one long sequence of queries.
        crossed = attend(query.reshape(-1, *query.shape[2:]), *memory).reshape(query.shape)
        return x + drop(FromHeads(self.block)(x, crossed)), cache


class PolicyHead(nn.Module):
    """Logits of the next token of an action.

    Dropout acts where `apply` is given a key "dropout", and nowhere else.

    Attributes:
        num_tokens: k, tokens of an action.
        vocabulary: V, values of a token.
        width: P, features of a token.
        layers: L.
        block: sizes of the attention blocks.
        dropout: share of features dropped after each block.
        remat: whether gradients recompute the inside of each layer instead of storing it.
    """

    num_tokens: int
    vocabulary: int
    width: int
    layers: int
    block: BlockConfig
    dropout: float = 0.0
    remat: bool = False

    def setup(self) -> None:
        dtype = self.block.dtype
        per_layer = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        to_memory = nn.vmap(ToHeads, in_axes=None, axis_size=self.layers, **per_layer)
        self.to_memory = to_memory(self.block, 2)
        # START has an embedding of its own, the last row.
        self.token_embedding = nn.Embed(self.vocabulary + 1, self.width, dtype=dtype)
        self.positions = self.param(
            "positions", nn.initializers.normal(0.02), (self.num_tokens, self.width)
        )
        per_layer["split_rngs"]["dropout"] = True
        stack = nn.scan(
            # A scan keeps XLA from undoing the recomputation, so that no barrier has to.
            nn.remat(DecoderLayer, prevent_cse=False) if self.remat else DecoderLayer,
            in_axes=(0, 0, nn.broadcast),
            length=self.layers,
            **per_layer,
        )
        self.decoder = stack(self.block, self.dropout)
        # Of products in the dtype of the blocks, but summed and kept in float32.
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        self.logits = nn.Dense(self.vocabulary, dtype=dtype, dot_general=product)

    def remember(self, embedding: Float[Array, "M C"]) -> KeyValues:
        """Cross-attention keys and values, (L, M, heads, d), of a state's embedding (M, C)."""
        return KeyValues(*self.to_memory(embedding))

    def start(self, memory: KeyValues) -> tuple[Float32[Array, "V"], Float[Array, "P"], KeyValues]:
        """Runs the START symbol.

        Returns:
            Logits of the first token (V,), the features at START (P,) which depend on the state
            alone, and the cache of one sequence.
        """
        shape = (self.layers, 1, self.num_tokens, self.block.heads, self.block.head_dim)
        empty = jnp.zeros(shape, self.block.dtype)
        symbol = jnp.full((1, 1), self.vocabulary)
        cache = KeyValues(empty, empty)
        features, cache = self._run(memory, cache, symbol, jnp.zeros((), jnp.int32))
        return self._logits(features)[0, 0], features[0, 0], cache

    def extend(
        self,
        memory: KeyValues,
        cache: KeyValues,
        tokens: Int32[Array, "A n"],
        position: Int32[Array, ""],
    ) -> tuple[Float32[Array, "A n V"], KeyValues]:
        """Logits (A, n, V) of the tokens that follow each of tokens (A, n), and the cache.

        ``position`` counts the symbols before them, START included.
        """
        features, cache = self._run(memory, cache, tokens, position)
        return self._logits(features), cache

    def _logits(self, features: Float[Array, "A n P"]) -> Float32[Array, "A n V"]:
        return self.logits(nn.relu(features))

    def _run(
        self,
        memory: KeyValues,
        cache: KeyValues,
        symbols: Int[Array, "A n"],
        position: Int32[Array, ""],
    ) -> tuple[Float[Array, "A n P"], KeyValues]:
        places = position + jnp.arange(symbols.shape[1])
        x = self._embed(symbols) + self.positions[places].astype(self.block.dtype)
        return self.decoder(x, memory, cache, position)

    def _embed(self, symbols: Int[Array, "A n"]) -> Float[Array, "A n P"]:
        """Embeddings of symbols, the tokens and START."""
        embed = self.token_embedding
        if symbols.shape[1] == 1:
            return embed(symbols)
        # Several symbols a sequence are those of the learner. The gradient of a table's rows is a
        # scatter of very many into few, which a GPU makes one after the other; that of a product
        # is a product.
        rows = jax.nn.one_hot(symbols, embed.num_embeddings, dtype=embed.dtype)
        return rows @ embed.embedding.astype(embed.dtype)

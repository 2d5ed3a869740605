"""The autoregressive policy head (paper, Supplementary A.1.2, Extended Data Fig. 4).

A transformer decoder over the tokens of an action. Its cross-attention keys and values are computed
once for each state and shared by all actions; those of earlier tokens are kept in a cache. Sampling
and teacher forcing run the same two functions, `start` and `extend`, so their probabilities agree.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from networks.attention import FeedForward, attend


class KeyValues(NamedTuple):
    """Keys and values of each layer: (L, M, heads, d), or (L, A, k, heads, d) in a cache."""

    keys: Float[Array, "*shape heads d"]
    values: Float[Array, "*shape heads d"]


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, MLP; each pre-norm with a skip connection.

    Attributes:
        heads: attention heads.
        head_dim: features of a head.
        mlp_factor: hidden width of the MLP over P.
    """

    heads: int
    head_dim: int
    mlp_factor: int

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
        shape = (self.heads, self.head_dim)
        actions, count, width = x.shape
        qkv = nn.DenseGeneral((3, *shape), use_bias=False)(nn.LayerNorm()(x))
        query, key, value = jnp.moveaxis(qkv, -3, 0)
        cache = KeyValues(
            jax.lax.dynamic_update_slice_in_dim(cache.keys, key, position, axis=1),
            jax.lax.dynamic_update_slice_in_dim(cache.values, value, position, axis=1),
        )
        seen = jnp.arange(cache.keys.shape[1]) <= position + jnp.arange(count)[:, None]
        x = x + nn.DenseGeneral(width, axis=(-2, -1))(attend(query, *cache, seen))
        query = nn.DenseGeneral(shape, use_bias=False)(nn.LayerNorm()(x))
        crossed = attend(query.reshape(actions * count, *shape), *memory)
        x = x + nn.DenseGeneral(width, axis=(-2, -1))(crossed.reshape(actions, count, *shape))
        return FeedForward(self.mlp_factor)(x), cache


class PolicyHead(nn.Module):
    """Logits of the next token of an action.

    Attributes:
        num_tokens: k, tokens of an action.
        vocabulary: V, values of a token.
        width: P, features of a token.
        layers: L.
        heads: attention heads.
        head_dim: features of a head.
        mlp_factor: hidden width of the MLPs over P.
    """

    num_tokens: int
    vocabulary: int
    width: int
    layers: int
    heads: int
    head_dim: int
    mlp_factor: int

    def setup(self) -> None:
        shape = (self.layers, 2, self.heads, self.head_dim)
        self.memory_norm = nn.LayerNorm()
        self.memory_projection = nn.DenseGeneral(shape, use_bias=False)
        # START has an embedding of its own, the last row.
        self.token_embedding = nn.Embed(self.vocabulary + 1, self.width)
        self.positions = self.param(
            "positions", nn.initializers.normal(0.02), (self.num_tokens, self.width)
        )
        stack = nn.scan(
            DecoderLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, 0, nn.broadcast),
            length=self.layers,
        )
        self.decoder = stack(self.heads, self.head_dim, self.mlp_factor)
        self.final_norm = nn.LayerNorm()
        self.logits = nn.Dense(self.vocabulary)

    def remember(self, embedding: Float[Array, "M C"]) -> KeyValues:
        """Cross-attention keys and values of a state's embedding (M, C)."""
        projected = self.memory_projection(self.memory_norm(embedding))
        keys, values = jnp.moveaxis(projected, (-3, -4), (0, 1))
        return KeyValues(keys, values)

    def start(self, memory: KeyValues) -> tuple[Float[Array, "V"], Float[Array, "P"], KeyValues]:
        """Runs the START symbol.

        Returns:
            Logits of the first token (V,), the features at START (P,) which depend on the state
            alone, and the cache of one sequence.
        """
        shape = (self.layers, 1, self.num_tokens, self.heads, self.head_dim)
        cache = KeyValues(jnp.zeros(shape), jnp.zeros(shape))
        symbol = jnp.full((1, 1), self.vocabulary)
        features, cache = self._run(memory, cache, symbol, jnp.zeros((), jnp.int32))
        return self.logits(features)[0, 0], features[0, 0], cache

    def extend(
        self,
        memory: KeyValues,
        cache: KeyValues,
        tokens: Int32[Array, "A n"],
        position: Int32[Array, ""],
    ) -> tuple[Float[Array, "A n V"], KeyValues]:
        """Logits (A, n, V) of the tokens that follow each of tokens (A, n), and the cache.

        ``position`` counts the symbols before them, START included.
        """
        features, cache = self._run(memory, cache, tokens, position)
        return self.logits(features), cache

    def _run(
        self,
        memory: KeyValues,
        cache: KeyValues,
        symbols: Int[Array, "A n"],
        position: Int32[Array, ""],
    ) -> tuple[Float[Array, "A n P"], KeyValues]:
        places = position + jnp.arange(symbols.shape[1])
        x = self.token_embedding(symbols) + self.positions[places]
        x, cache = self.decoder(x, memory, cache, position)
        return self.final_norm(x), cache

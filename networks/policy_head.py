"""The autoregressive policy head (paper, Supplementary A.1.2, Extended Data Fig. 4).

A transformer decoder over the tokens of an action. Its cross-attention keys and values are computed
once for each state and shared by all actions; those of earlier tokens are kept in a cache. Sampling
and teacher forcing run the same two functions, `start` and `extend`, so their probabilities agree.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32

from networks.absorbed_attention import Unmapped
from networks.attention import BlockConfig, FromHeads, ToHeads, attend, attend_once

# Of each layer, keys and values of the sequence that it attends to.
Memory = tuple[Float[Array, "M 2 heads d"], ...]
Cache = tuple[Float[Array, "A k 2 heads d"], ...]


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
        memory: Float[Array, "M 2 heads d"] | Unmapped,
        cache: Float[Array, "A k 2 heads d"],
        position: Int32[Array, ""],
    ) -> tuple[Float[Array, "A n P"], Float[Array, "A k 2 heads d"]]:
        """Advances A sequences by n tokens.

        Args:
            x: new tokens, (A, n, P).
            memory: of this layer, (M, 2, heads, d), or for a single token what they are made of.
            cache: of this layer, (A, k, 2, heads, d).
            position: index of the first new token, int32 scalar.

        Returns:
            The tokens, (A, n, P), and the cache with their keys and values.
        """
        drop = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))
        x = nn.LayerNorm(dtype=self.block.dtype)(x)
        own = ToHeads(self.block, 3)(x)
        cache = jax.lax.dynamic_update_slice_in_dim(cache, own[:, :, 1:], position, axis=1)
        seen = jnp.arange(cache.shape[1]) <= position + jnp.arange(x.shape[1])[:, None]
        attended = attend(own[:, :, :1], cache, mask=seen)
        x = x + drop(FromHeads(self.block)(x, attended))

        x = nn.LayerNorm(dtype=self.block.dtype)(x)
        query = ToHeads(self.block, 1)(x)
        # All tokens of all actions ask the same memory: one long sequence of queries.
        asking = query.reshape(-1, *query.shape[2:])
        answer = attend_once if isinstance(memory, Unmapped) else attend
        crossed = answer(asking, memory)
        crossed = crossed.reshape(*x.shape[:2], *crossed.shape[1:])
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
        layer = nn.remat(DecoderLayer) if self.remat else DecoderLayer
        self.decoder = [layer(self.block, self.dropout) for _ in range(self.layers)]
        self.to_memory = [ToHeads(self.block, 2) for _ in range(self.layers)]
        # START has an embedding of its own, the last row.
        self.token_embedding = nn.Embed(self.vocabulary + 1, self.width, dtype=dtype)
        self.positions = self.param(
            "positions", nn.initializers.normal(0.02), (self.num_tokens, self.width)
        )
        # Of products in the dtype of the blocks, but summed and kept in float32.
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        self.logits = nn.Dense(self.vocabulary, dtype=dtype, dot_general=product)

    def remember(self, embedding: Float[Array, "M C"]) -> Memory:
        """What the layers attend to of a state's embedding (M, C)."""
        return tuple(layer(embedding) for layer in self.to_memory)

    def summarise(self, embedding: Float[Array, "M C"]) -> Float[Array, "P"]:
        """The features at START of a state's embedding (M, C), where no token follows.

        They are those of `start` and `remember` to rounding. It has no gradient on GPUs.
        """
        layers = (layer.variables["params"] for layer in self.to_memory)
        features, _ = self.start(tuple(Unmapped(embedding, params) for params in layers))
        return features

    def start(self, memory: Memory | tuple[Unmapped, ...]) -> tuple[Float[Array, "P"], Cache]:
        """Runs the START symbol.

        Returns:
            The features at START (P,), which depend on the state alone, and the cache of one
            sequence.
        """
        shape = (1, self.num_tokens, 2, self.block.heads, self.block.head_dim)
        cache = (jnp.zeros(shape, self.block.dtype),) * self.layers
        symbol = jnp.full((1, 1), self.vocabulary)
        features, cache = self._run(memory, cache, symbol, jnp.zeros((), jnp.int32))
        return features[0, 0], cache

    def extend(
        self, memory: Memory, cache: Cache, tokens: Int32[Array, "A n"], position: Int32[Array, ""]
    ) -> tuple[Float32[Array, "A n V"], Cache]:
        """Logits (A, n, V) of the tokens that follow each of tokens (A, n), and the cache.

        ``position`` counts the symbols before them, START included.
        """
        features, cache = self._run(memory, cache, tokens, position)
        return self.predict(features), cache

    def predict(self, features: Float[Array, "*batch P"]) -> Float32[Array, "*batch V"]:
        """Logits of the token after a symbol with these features."""
        return self.logits(nn.relu(features))

    def _run(
        self,
        memory: Memory | tuple[Unmapped, ...],
        cache: Cache,
        symbols: Int[Array, "A n"],
        position: Int32[Array, ""],
    ) -> tuple[Float[Array, "A n P"], Cache]:
        places = position + jnp.arange(symbols.shape[1])
        x = self._embed(symbols) + self.positions[places].astype(self.block.dtype)
        grown = []
        for layer, of_layer, so_far in zip(self.decoder, memory, cache, strict=True):
            x, own = layer(x, of_layer, so_far, position)
            grown.append(own)
        return x, tuple(grown)

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

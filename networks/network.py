"""The agent's network: torso, policy head and value head on one state of the game.

Functions of ONE state; vmap them.
"""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from networks.attention import BlockConfig
from networks.policy_head import Cache, Memory, PolicyHead
from networks.torso import Torso
from networks.value_head import ValueHead
from tensorgame.factors import ActionSpace, outer
from tensorgame.game import Game, State


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network. The paper's numbers are given in brackets; the defaults suit a laptop's CPU."""

    width: int = 32
    """C, features of a torso cell (512)."""
    layers: int = 1
    """Torso layers of attentive modes (8)."""
    separate_stages: bool = False
    """Weights of its own for each of the three stages of a torso layer, instead of one set for all
    (unknown)."""
    heads: int = 2
    """Attention heads of the torso (16)."""
    head_dim: int = 16
    """Features of a torso head (32)."""
    mlp_factor: int = 2
    """Hidden width of every MLP block over the width of its input (4)."""
    policy_width: int = 64
    """P, features of a policy token (2048)."""
    policy_layers: int = 1
    """Layers of the policy head (2)."""
    policy_heads: int = 4
    """Attention heads of the policy head (32)."""
    policy_head_dim: int = 16
    """Features of a policy head's attention head (32)."""
    dropout: float = 0.0
    """Share of the policy head's features that are dropped while it learns (unknown); 0 for none.
    """
    token_size: int = 0
    """d, entries of a factor in a token (5), a divisor of S; 0 for the most with |F|^d <= 1024."""
    value_width: int = 64
    """Hidden width of the value head (512)."""
    quantiles: int = 8
    """q, quantiles predicted by the value head (8)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in (unknown). Parameters, layer norms,
    softmaxes, log-probabilities and the value head are float32 either way."""
    remat: bool = False
    """Recompute the inside of each layer in the backward pass: less memory, a third more work.
    learner.microbatches saves memory without that work, as far as a part still fills the device."""


class AgentNetwork(nn.Module):
    """See `encode`, `start`, `extend`, `score` and `evaluate`.

    Dropout acts only where `apply` is given a key ``rngs={"dropout": key}``, as the learner does.

    Attributes:
        config: sizes.
        game: the rules, for the scale of the value and the scalar inputs.
        space: the action space, for the tokens and the mask of illegal ones.
    """

    config: NetworkConfig
    game: Game
    space: ActionSpace

    def setup(self) -> None:
        c = self.config
        block = functools.partial(BlockConfig, mlp_factor=c.mlp_factor, dtype=jnp.dtype(c.dtype))
        self.torso = Torso(
            c.width,
            c.layers,
            block(heads=c.heads, head_dim=c.head_dim),
            c.separate_stages,
            c.remat,
        )
        self.policy = PolicyHead(
            num_tokens=self.space.num_tokens,
            vocabulary=self.space.vocabulary,
            width=c.policy_width,
            layers=c.policy_layers,
            block=block(heads=c.policy_heads, head_dim=c.policy_head_dim),
            dropout=c.dropout,
            remat=c.remat,
        )
        self.value = ValueHead(c.value_width, c.quantiles, float(self.game.max_moves))

    def rounded(self, params: dict) -> dict:
        """Parameters with matrices in the dtype that they are multiplied in, for many calls.

        The network says the same with them. With others each layer rounds its matrices in each
        call: at a GPU's small batches one kernel of five in drawing actions.
        """
        dtype = jnp.dtype(self.config.dtype)

        def round_matrices(module: dict) -> dict:
            return jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, module)

        # The value head computes in float32.
        modules = params["params"]
        rounded = {name: round_matrices(own) for name, own in modules.items() if name != "value"}
        return {**params, "params": modules | rounded}

    def encode(self, state: State) -> Memory:
        """Embeds a state as the memory that the policy head attends to."""
        return self.policy.remember(self._embed(state))

    def start(self, memory: Memory) -> tuple[Float32[Array, "V"], Float32[Array, "q"], Cache]:
        """Log-probabilities of an action's first token (V,), value quantiles (q,), and a cache."""
        features, cache = self.policy.start(memory)
        first = self._mask(self.policy.predict(features), 0, jnp.array(False))
        return first, self.value(features), cache

    def extend(
        self,
        memory: Memory,
        cache: Cache,
        tokens: Int32[Array, "A n"],
        position: Int32[Array, ""],
        started: Bool[Array, "A n"],
    ) -> tuple[Float32[Array, "A n V"], Cache]:
        """Log-probabilities of the tokens that follow (A, n) tokens: (A, n, V).

        Args:
            memory: from `encode`.
            cache: from `start`, repeated for the A actions, or from an earlier call.
            tokens: the tokens at places position - 1, ..., position + n - 2 of the actions.
            position: place of the first token that is predicted, int32 scalar.
            started: whether the factor that each predicted token belongs to already has a non-zero
                entry, bool (A, n).
        """
        logits, cache = self.policy.extend(memory, cache, tokens, position)
        places = position + jnp.arange(tokens.shape[1])
        return self._mask(logits, places, started), cache

    def score(
        self, state: State, tokens: Int32[Array, "A k"]
    ) -> tuple[Float32[Array, "A"], Float32[Array, "q"]]:
        """Teacher forcing: log-probabilities (A,) of actions (A, k), and the quantiles (q,)."""
        memory = self.encode(state)
        first, quantiles, cache = self.start(memory)
        cache = jax.tree.map(lambda x: jnp.repeat(x, len(tokens), axis=0), cache)
        started = self.space.started(tokens)[:, 1:]
        rest, _ = self.extend(memory, cache, tokens[:, :-1], jnp.ones((), jnp.int32), started)
        first = jnp.broadcast_to(first, (len(tokens), 1, len(first)))
        log_probs = jnp.concatenate([first, rest], axis=1)
        # Not an indexing, whose gradient is a scatter.
        is_chosen = tokens[..., None] == jnp.arange(self.space.vocabulary)
        return jnp.where(is_chosen, log_probs, 0.0).sum(axis=(-2, -1)), quantiles

    def evaluate(self, state: State) -> Float32[Array, "q"]:
        """The value quantiles (q,) alone. They have no gradient on GPUs."""
        return self.value(self.policy.summarise(self._embed(state)))

    def _embed(self, state: State) -> Float[Array, "M C"]:
        """Entries outside of the corner of the action space are zero and not looked at."""
        planes = state.residual[None].astype(jnp.int32)
        if state.history is not None:
            past = self.game.ring.reduce(jax.vmap(outer)(state.history))
            planes = jnp.concatenate([planes, past])
        u, v, w = self.space.sides
        planes = planes[:, :u, :v, :w]
        scalars = state.moves[None] / self.game.max_moves
        return self.torso(planes.astype(jnp.float32), scalars)

    def _mask(
        self,
        logits: Float32[Array, "*batch V"],
        places: Int[Array, "n"] | int,
        started: Bool[Array, "*batch"],
    ) -> Float32[Array, "*batch V"]:
        legal = jnp.asarray(self.space.legal)[places, started.astype(jnp.int32)]
        return jax.nn.log_softmax(jnp.where(legal, logits, -1e9), axis=-1)

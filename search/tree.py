"""What the searches share: nodes, their evaluation, the growth of the tree and the result.

The tree is mctx's. Its action axis indexes the K slots of the actions that were sampled at a node,
which the node's embedding keeps. There is no transposition table and no sub-tree is used again
after a move; the paper has both.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mctx
from jaxtyping import Array, Float, Int, Int8, Int32, Key, UInt32

from networks.network import AgentNetwork
from networks.value_head import risk_seeking_mean
from search.config import SearchConfig
from search.growth import grow, tried_once
from search.sampling import DEAD, SampledActions, is_alive, sample_actions
from tensorgame.game import State
from tensorgame.symmetries import SignedPermutation, choose, permute_state, permute_tokens

# Features of torso cells that are in work at once, at most: enough to fill a card, and 128 MiB of
# bfloat16, of which a layer holds a few copies.
_FEATURES = 2**26


class SearchResult(NamedTuple):
    """For each of B games.

    Attributes:
        action: the move to play, (B, 3, S), int8.
        tokens: the K actions of the root, (B, K, k), int32; meaningless where the weight is 0.
        weights: their improved policy, (B, K). It sums to 1, or with `SearchConfig.unsampled_mass`
            to what the actions that were not sampled leave of 1.
        entropy: of the sampled part of the root's prior, in nats, (B,).
        value: of the root after the search, in moves, (B,): the mean of the values of the visited
            actions under the improved policy. Leaves enter it with their risk-seeking value.
        depth: of the tree, (B,): the mean over the simulations of the moves from the root to the
            new node, those past the end of a game not counted.
    """

    action: Int8[Array, "B 3 S"]
    tokens: Int32[Array, "B K k"]
    weights: Float[Array, "B K"]
    entropy: Float[Array, "B"]
    value: Float[Array, "B"]
    depth: Float[Array, "B"]


class Node(NamedTuple):
    """What the tree keeps of a node, for B games.

    The key (raw, as trees hold no typed keys), folded with the choice of a child, makes the
    randomness of that child and its descendants.
    """

    state: State
    tokens: Int32[Array, "B K k"]
    key: UInt32[Array, "B words"]


class Edges(NamedTuple):
    """Steps from B nodes along N of their slots: rewards, discounts, and values in moves, (B, N).

    Discount and value are 0 where the step ends the game.
    """

    reward: Float[Array, "B N"]
    discount: Float[Array, "B N"]
    value: Float[Array, "B N"]


class Evaluation(NamedTuple):
    """A node, its K actions and its value in moves (B,), risk-seeking (paper, Methods)."""

    node: Node
    sampled: SampledActions
    value: Float[Array, "B"]


@dataclasses.dataclass(frozen=True)
class Simulator:
    """Evaluates nodes with the network and steps between them by the rules.

    Attributes:
        network: the network.
        config: of the search.
        params: parameters of the network.
        symmetries: signed permutations (N, S), of which each query of the network is made through a
            random one; or none.
        spare_slots: dead slots that the tree has after the K of the actions.
    """

    network: AgentNetwork
    config: SearchConfig
    params: dict
    symmetries: SignedPermutation | None
    spare_slots: int = 0

    def evaluate(self, keys: Key[Array, "B"], states: State) -> Evaluation:
        """Evaluates B states; the keys are consumed."""
        query_keys, node_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        sampled, quantiles = jax.vmap(self._query)(query_keys, states)
        node = Node(states, sampled.tokens, jax.random.key_data(node_keys))
        return Evaluation(node, sampled, risk_seeking_mean(quantiles))

    def expand(self, choice: Int[Array, "B"], parent: Node) -> tuple[mctx.RecurrentFnOutput, Node]:
        """From B nodes to their children in slots ``choice`` (B,)."""
        keys, states, reward, alive = self._follow(choice, parent)
        node, sampled, value = self.evaluate(keys, states)
        output = mctx.RecurrentFnOutput(
            reward=reward,
            discount=alive,
            prior_logits=pad(sampled.prior_logits, self.spare_slots, DEAD),
            value=alive * value,
        )
        return output, node

    def look(self, parent: Node, count: int) -> Edges:
        """From B nodes along their first ``count`` slots.

        What `expand` says of the children but for their actions, which are most of its work.
        """
        batch = len(parent.tokens)
        choices = jnp.broadcast_to(jnp.arange(count)[:, None], (count, batch))
        keys, states, reward, alive = jax.vmap(self._follow, in_axes=(0, None))(choices, parent)
        together = self._leaves_together(count * batch)
        leaves = jax.tree.map(
            lambda x: x.reshape(count * batch // together, together, *x.shape[2:]), (keys, states)
        )
        value = jax.lax.map(lambda some: self._values(*some), leaves).reshape(count, batch)
        return jax.tree.map(jnp.transpose, Edges(reward, alive, alive * value))

    def _follow(
        self, choice: Int[Array, "B"], parent: Node
    ) -> tuple[Key[Array, "B"], State, Float[Array, "B"], Float[Array, "B"]]:
        """The keys and states of children, rewards, and 0 where the game has ended, 1 elsewhere.

        Nothing is earned past the end of a game: its step is total, and there discount and value
        vanish.
        """
        action = self.network.space.decode(take(parent.tokens, choice))
        states, reward = jax.vmap(self.network.game.step)(parent.state, action)
        keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(parent.key), choice)
        return keys, states, reward, 1.0 - jax.vmap(self.network.game.done)(states)

    def _values(self, keys: Key[Array, "N"], states: State) -> Float[Array, "N"]:
        """Those of `evaluate` with the same keys."""

        def query(key: jax.Array, state: State) -> jax.Array:
            state, _, _ = self._seen(jax.random.split(key)[0], state)
            return self.network.apply(self.params, state, method="evaluate")

        return risk_seeking_mean(jax.vmap(query)(keys, states))

    def _query(self, key: Key[Array, ""], state: State) -> tuple[SampledActions, Float[Array, "q"]]:
        """`sample_actions` of ONE state, as it looks through a random symmetry."""
        network, count, sampling = self.network, self.config.num_actions, self.config.sampling
        seen, key, by = self._seen(key, state)
        sampled, quantiles = sample_actions(network, self.params, key, seen, count, sampling)
        if by is None:
            return sampled, quantiles
        tokens = permute_tokens(sampled.tokens, by.inverse, network.space)
        return sampled._replace(tokens=tokens), quantiles

    def _seen(
        self, key: Key[Array, ""], state: State
    ) -> tuple[State, Key[Array, ""], SignedPermutation | None]:
        """ONE state through a random symmetry, a key that is left, and the symmetry if any."""
        if self.symmetries is None:
            return state, key, None
        choice_key, key = jax.random.split(key)
        by = choose(choice_key, self.symmetries)
        return permute_state(state, by, self.network.game.ring), key, by

    def _leaves_together(self, count: int) -> int:
        """How many of so many leaves are evaluated at once."""
        u, v, w = self.network.space.sides
        features = (u * v + v * w + w * u) * self.network.config.width
        fitting = [n for n in range(1, count + 1) if count % n == 0 and n * features <= _FEATURES]
        return max(fitting, default=1)


def grow_tree(
    simulator: Simulator,
    root: Evaluation,
    prior_logits: Float[Array, "B slots"],
    root_selection: Callable,
    interior_selection: Callable,
    extra_data: object = None,
) -> mctx.Tree:
    """Makes the simulations of `SearchConfig.num_simulations`.

    Args:
        simulator: makes the nodes.
        root: the root.
        prior_logits: of the root's slots.
        root_selection: mctx's rule of the slot to try at the root.
        interior_selection: that of the nodes below; both get no key.
        extra_data: for the rules.
    """
    return grow(
        root=_as_root(root, prior_logits),
        expand=simulator.expand,
        root_selection=root_selection,
        interior_selection=interior_selection,
        num_simulations=simulator.config.num_simulations,
        invalid_actions=_invalid(simulator, prior_logits),
        extra_data=extra_data,
    )


def try_first(
    simulator: Simulator, root: Evaluation, prior_logits: Float[Array, "B slots"]
) -> mctx.Tree:
    """One simulation for each of the first slots, those without an action left out.

    The tree is a root that knows its edges. Arguments as of `grow_tree`.
    """
    count = simulator.config.num_simulations
    invalid = _invalid(simulator, prior_logits)
    edges = simulator.look(root.node, count)
    tried = (1.0 - invalid)[:, :count]
    edges = jax.tree.map(lambda x: pad(tried * x, invalid.shape[1] - count, 0.0), edges)
    tried = pad(tried, invalid.shape[1] - count, 0.0)
    return tried_once(_as_root(root, prior_logits), tried, *edges, invalid)


def _as_root(root: Evaluation, prior_logits: Float[Array, "B slots"]) -> mctx.RootFnOutput:
    return mctx.RootFnOutput(prior_logits=prior_logits, value=root.value, embedding=root.node)


def _invalid(
    simulator: Simulator, prior_logits: Float[Array, "B slots"]
) -> Float[Array, "B slots"]:
    """1 for the slots of the root that hold no action."""
    # A spare slot stands for no action, whatever its prior.
    is_spare = jnp.arange(prior_logits.shape[1]) >= simulator.config.num_actions
    return (is_spare | ~is_alive(prior_logits)).astype(prior_logits.dtype)


def read_result(
    simulator: Simulator,
    root: Evaluation,
    tree: mctx.Tree,
    choice: Int[Array, "B"],
    weights: Float[Array, "B K"],
    value: Float[Array, "B"],
) -> SearchResult:
    """The result of a search that chose slot ``choice`` (B,)."""
    prior = jax.nn.softmax(root.sampled.prior_logits)
    return SearchResult(
        action=simulator.network.space.decode(take(root.sampled.tokens, choice)),
        tokens=root.sampled.tokens,
        weights=weights,
        entropy=-jax.scipy.special.xlogy(prior, prior).sum(axis=-1),
        value=value,
        depth=_depth(tree),
    )


def _depth(tree: mctx.Tree) -> Float[Array, "B"]:
    """Each simulation has made one node after the root, unless the tree is the root alone."""
    moves = tree.embeddings.state.moves
    if moves.shape[1] == 1:
        return jnp.ones(len(moves))
    return (moves[:, 1:] - moves[:, :1]).mean(axis=1)


def take(tokens: Int32[Array, "B K k"], choice: Int[Array, "B"]) -> Int32[Array, "B k"]:
    """Row ``choice`` (B,) of tokens (B, K, k): (B, k)."""
    return jnp.take_along_axis(tokens, choice[:, None, None], axis=1)[:, 0]


def pad(slots: Float[Array, "B K"], spare: int, value: float) -> Float[Array, "B slots"]:
    """Adds ``spare`` slots with ``value``: (B, K + spare)."""
    return jnp.pad(slots, ((0, 0), (0, spare)), constant_values=value)

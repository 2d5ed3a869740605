"""The growth of mctx's trees, without a loop over their depth.

`mctx.search` walks down and up each tree one edge at a time, in loops that last as long as the
deepest tree of the batch and that the host has to time on a GPU. What a node chooses depends on
nothing but the node, so here all nodes choose at once, paths are found by pointer doubling, and
what lies on them is updated by masks: a simulation is a fixed, short sequence of dense operations.
The tree and the rules of selection are mctx's, and the trees are those that `mctx.search` grows, to
the rounding of sums.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

# An array, so that the rules see a node as mctx shows it; a constant, so that nothing is gathered.
_ROOT = np.array(mctx.Tree.ROOT_INDEX, np.int32)
_NONE = mctx.Tree.UNVISITED

# (key, tree, node, depth) to a slot, in ONE tree; the root's rule takes no depth.
Selection = Callable[..., Int[Array, ""]]


class _Paths(NamedTuple):
    """The paths of one simulation, from the root along the slots that the nodes choose.

    Attributes:
        choice: the slot each node chooses, (B, N).
        child: the node in that slot, (B, N); that of the edge to be added is the new one.
        nodes: the node at each depth, (B, N); past the end the last one again.
        leaf: the last node, whose choice has not been visited, (B,).
        length: nodes on the path, (B,).
    """

    choice: Int32[Array, "B N"]
    child: Int32[Array, "B N"]
    nodes: Int32[Array, "B N"]
    leaf: Int32[Array, "B"]
    length: Int32[Array, "B"]


def grow(
    root: mctx.RootFnOutput,
    expand: Callable[[Int[Array, "B"], object], tuple[mctx.RecurrentFnOutput, object]],
    root_selection: Selection,
    interior_selection: Selection,
    num_simulations: int,
    invalid_actions: Float[Array, "B A"],
    extra_data: object = None,
) -> mctx.Tree:
    """Grows B trees by ``num_simulations`` nodes each.

    Args:
        root: what the network says of the roots.
        expand: from slots (B,) and the embeddings of their nodes to the children, as the
            recurrent function of mctx.
        root_selection: mctx's rule of the slot to try at the root.
        interior_selection: that of the nodes below; both get a key of None.
        num_simulations: nodes to add, N - 1.
        invalid_actions: slots that the rule of the root must not choose, 1 for these.
        extra_data: for the rule of the root, with an axis B.
    """
    tree = _plant(root, num_simulations + 1, invalid_actions, extra_data)
    depth = jnp.zeros_like(tree.parents)

    def simulate(index: jax.Array, carry: tuple) -> tuple:
        tree, depth = carry
        paths = _descend(tree, depth, index + 1, root_selection, interior_selection)
        rows = jnp.arange(len(paths.leaf))
        action = paths.choice[rows, paths.leaf]
        parents = jax.tree.map(lambda x: x[rows, paths.leaf], tree.embeddings)
        edge, embedding = expand(action, parents)
        tree = _add(tree, paths, edge, embedding, action, index + 1)
        tree = _back_up(tree, depth, paths, edge.value)
        return tree, depth.at[:, index + 1].set(paths.length)

    return jax.lax.fori_loop(0, num_simulations, simulate, (tree, depth))[0]


def tried_once(
    root: mctx.RootFnOutput,
    tried: Float[Array, "B A"],
    rewards: Float[Array, "B A"],
    discounts: Float[Array, "B A"],
    values: Float[Array, "B A"],
    invalid_actions: Float[Array, "B A"],
) -> mctx.Tree:
    """B trees after a simulation of each slot that was ``tried``, without the nodes they made.

    Args:
        root: what the network says of the roots.
        tried: 1 for these slots, 0 for the others, for which the next three are 0.
        rewards: of the step along a slot.
        discounts: of what comes after it.
        values: of the node at its end.
        invalid_actions: as in `grow`.
    """
    tree = _plant(root, 1, invalid_actions, None)
    visits = 1.0 + tried.sum(axis=1)
    mean = (root.value + (rewards + discounts * values).sum(axis=1)) / visits
    return tree.replace(
        node_visits=visits.astype(jnp.int32)[:, None],
        node_values=mean[:, None],
        children_visits=tried.astype(jnp.int32)[:, None],
        children_rewards=rewards[:, None],
        children_discounts=discounts[:, None],
        children_values=values[:, None],
    )


def _plant(
    root: mctx.RootFnOutput, nodes: int, invalid_actions: jax.Array, extra_data: object
) -> mctx.Tree:
    """Trees of a root alone, with room for ``nodes``."""
    batch, slots = root.prior_logits.shape
    kind = root.value.dtype

    def none(*shape: int) -> jax.Array:
        return jnp.full((batch, nodes, *shape), _NONE, jnp.int32)

    def zeros(dtype: jax.typing.DTypeLike, *shape: int) -> jax.Array:
        return jnp.zeros((batch, nodes, *shape), dtype)

    def with_root(x: jax.Array) -> jax.Array:
        return zeros(x.dtype, *x.shape[1:]).at[:, _ROOT].set(x)

    return mctx.Tree(
        node_visits=with_root(jnp.ones(batch, jnp.int32)),
        raw_values=with_root(root.value),
        node_values=with_root(root.value),
        parents=none(),
        action_from_parent=none(),
        children_index=none(slots),
        children_prior_logits=with_root(root.prior_logits),
        children_values=zeros(kind, slots),
        children_visits=zeros(jnp.int32, slots),
        children_rewards=zeros(kind, slots),
        children_discounts=zeros(kind, slots),
        embeddings=jax.tree.map(with_root, root.embedding),
        root_invalid_actions=invalid_actions,
        extra_data=extra_data,
    )


def _descend(
    tree: mctx.Tree,
    depth: Int32[Array, "B N"],
    new: jax.Array,
    root_selection: Selection,
    interior_selection: Selection,
) -> _Paths:
    """Follows the choices from the root to the first that leads to no node yet.

    Args:
        tree: B trees.
        depth: of their nodes.
        new: the index that the node to be added will have.
        root_selection: the rule of the root.
        interior_selection: that of the other nodes.
    """
    choice = _choices(tree, root_selection, interior_selection)
    child = _pick(tree.children_index, choice)
    count = choice.shape[1]
    jump = jnp.where(child == _NONE, jnp.arange(count), child)
    # The node d steps from the root, for all d, by the binary digits of d.
    steps, nodes = jnp.arange(count), jnp.zeros_like(jump)
    for digit in range((count - 1).bit_length()):
        nodes = jnp.where((steps >> digit) & 1, _at(jump, nodes), nodes)
        jump = _at(jump, jump)
    leaf = nodes[:, -1]
    length = _at(depth, leaf[:, None])[:, 0] + 1
    return _Paths(choice, jnp.where(child == _NONE, new, child), nodes, leaf, length)


def _choices(
    tree: mctx.Tree, root_selection: Selection, interior_selection: Selection
) -> Int32[Array, "B N"]:
    """The slot that each node chooses; meaningless for nodes that are not there yet."""

    def at_node(node: mctx.Tree) -> jax.Array:
        return interior_selection(None, node, _ROOT, 1)

    # A node is shown to its rule as the only one of a tree, so that nothing has to be gathered.
    per_game = ("embeddings", "root_invalid_actions", "extra_data")
    alone = {name: x[:, :, None] for name, x in tree.items() if name not in per_game}
    games = {name: tree[name] for name in per_game[1:]}
    nodes = mctx.Tree(**alone, **games, embeddings=None)
    axes = mctx.Tree(**dict.fromkeys(alone, 0), **dict.fromkeys(games), embeddings=None)
    choices = jax.vmap(jax.vmap(at_node, in_axes=(axes,)))(nodes)
    at_root = nodes.replace(**{name: x[:, _ROOT] for name, x in alone.items()})
    root = jax.vmap(lambda one: root_selection(None, one, _ROOT))(at_root)
    return choices.at[:, _ROOT].set(root)


def _add(
    tree: mctx.Tree,
    paths: _Paths,
    edge: mctx.RecurrentFnOutput,
    embedding: object,
    action: Int32[Array, "B"],
    new: jax.Array,
) -> mctx.Tree:
    """Adds node ``new`` at the end of each path."""
    _, nodes, slots = tree.children_index.shape
    at_leaf = jnp.arange(nodes) == paths.leaf[:, None]
    is_edge = at_leaf[..., None] & (jnp.arange(slots) == action[:, None, None])

    def on_edge(old: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(is_edge, jnp.reshape(value, (-1, 1, 1)), old)

    def at_node(old: jax.Array, value: jax.Array | int) -> jax.Array:
        return old.at[:, new].set(value)

    return tree.replace(
        node_visits=at_node(tree.node_visits, 1),
        raw_values=at_node(tree.raw_values, edge.value),
        node_values=at_node(tree.node_values, edge.value),
        parents=at_node(tree.parents, paths.leaf),
        action_from_parent=at_node(tree.action_from_parent, action),
        children_prior_logits=at_node(tree.children_prior_logits, edge.prior_logits),
        embeddings=jax.tree.map(at_node, tree.embeddings, embedding),
        children_index=on_edge(tree.children_index, new),
        children_rewards=on_edge(tree.children_rewards, edge.reward),
        children_discounts=on_edge(tree.children_discounts, edge.discount),
    )


def _back_up(
    tree: mctx.Tree, depth: Int32[Array, "B N"], paths: _Paths, value: Float[Array, "B"]
) -> mctx.Tree:
    """Adds the value of the new node to the means of the nodes on its path."""
    count = depth.shape[1]
    rewards = _at(_pick(tree.children_rewards, paths.choice), paths.nodes)
    discounts = _at(_pick(tree.children_discounts, paths.choice), paths.nodes)
    is_above = jnp.arange(count) < paths.length[:, None]
    returns = _returns(
        jnp.where(is_above, rewards, value[:, None]), jnp.where(is_above, discounts, 0.0)
    )
    # Where the path is, seen from the nodes.
    on_path = (_at(paths.nodes, depth) == jnp.arange(count)) & (depth < paths.length[:, None])
    visits = tree.node_visits
    mean = (tree.node_values * visits + _at(returns, depth)) / (visits + 1.0)
    values = jnp.where(on_path, mean, tree.node_values)
    child_values = _at(values, paths.child)
    is_edge = _edges(on_path, paths.choice, tree.num_actions)
    return tree.replace(
        node_visits=visits + on_path,
        node_values=values,
        children_visits=tree.children_visits + is_edge,
        children_values=jnp.where(is_edge, child_values[..., None], tree.children_values),
    )


def _returns(rewards: Float[Array, "B N"], discounts: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """The solution of G[d] = rewards[d] + discounts[d] G[d + 1], the last discount being 0."""
    for digit in range((rewards.shape[1] - 1).bit_length()):
        step = 1 << digit
        later = ((0, 0), (0, step))
        rewards = rewards + discounts * jnp.pad(rewards, later)[:, step:]
        discounts = discounts * jnp.pad(discounts, later)[:, step:]
    return rewards


def _edges(
    on_path: Bool[Array, "B N"], choice: Int32[Array, "B N"], slots: int
) -> Bool[Array, "B N A"]:
    """The edges from the nodes of a path along their choices."""
    return on_path[..., None] & (jnp.arange(slots) == choice[..., None])


def _at(values: jax.Array, index: Int32[Array, "B M"]) -> jax.Array:
    """values[b, index[b, m]]: (B, M) from (B, N)."""
    return jnp.take_along_axis(values, index, axis=1)


def _pick(values: jax.Array, choice: Int32[Array, "B N"]) -> jax.Array:
    """values[b, n, choice[b, n]]: (B, N) from (B, N, A)."""
    return jnp.take_along_axis(values, choice[..., None], axis=2)[..., 0]

"""Our loop grows the trees of mctx.search."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from search.growth import grow

DEEPEST = 5
_QTRANSFORM = mctx.qtransform_completed_by_mix_value


def random_problem(seed: int, games: int, slots: int):
    """A root, a function of its descendants, one slot that must not be tried, and Gumbels."""
    keys = jax.random.split(jax.random.key(seed), 4)

    def expand(choice, node):
        own = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(node["key"]), choice)
        logits_keys, value_keys, node_keys = jax.vmap(
            lambda key: jax.random.split(key, 3), out_axes=1
        )(own)
        depth = node["depth"] + 1
        alive = jnp.where(depth >= DEEPEST, 0.0, 1.0)
        output = mctx.RecurrentFnOutput(
            reward=-jnp.ones(games),
            discount=alive,
            prior_logits=2 * jax.vmap(lambda key: jax.random.normal(key, (slots,)))(logits_keys),
            value=3 * alive * jax.vmap(jax.random.normal)(value_keys),
        )
        return output, {"key": jax.random.key_data(node_keys), "depth": depth}

    root = mctx.RootFnOutput(
        prior_logits=jax.random.normal(keys[0], (games, slots)),
        value=jax.random.normal(keys[1], (games,)),
        embedding={
            "key": jax.random.key_data(jax.random.split(keys[2], games)),
            "depth": jnp.zeros(games, jnp.int32),
        },
    )
    invalid = jnp.zeros((games, slots)).at[:, -1].set(1.0)
    return root, expand, invalid, jax.random.gumbel(keys[3], (games, slots))


def gumbel_rules(simulations: int, slots: int):
    root = functools.partial(
        mctx.gumbel_muzero_root_action_selection,
        num_simulations=simulations,
        max_num_considered_actions=slots,
        qtransform=_QTRANSFORM,
    )
    interior = functools.partial(
        mctx.gumbel_muzero_interior_action_selection, qtransform=_QTRANSFORM
    )
    return root, interior


def puct_rules(_simulations: int, _slots: int):
    def select(_key, tree, node, depth):
        key = jax.random.key(0, impl="unsafe_rbg")
        return mctx.muzero_action_selection(key, tree, node, depth)

    return functools.partial(select, depth=0), select


@pytest.mark.parametrize("rules", [gumbel_rules, puct_rules])
@pytest.mark.parametrize(("games", "slots", "simulations"), [(3, 2, 1), (8, 6, 40)])
def test_the_trees_are_those_of_mctx(rules, games, slots, simulations):
    root, expand, invalid, gumbels = random_problem(simulations, games, slots)
    root_selection, interior_selection = rules(simulations, slots)
    extra_data = mctx.GumbelMuZeroExtraData(root_gumbel=gumbels)
    expected = jax.jit(
        lambda: mctx.search(
            params=None,
            rng_key=jax.random.key(0),
            root=root,
            recurrent_fn=lambda _params, _key, choice, node: expand(choice, node),
            root_action_selection_fn=root_selection,
            interior_action_selection_fn=interior_selection,
            num_simulations=simulations,
            invalid_actions=invalid,
            extra_data=extra_data,
        )
    )()
    tree = jax.jit(
        lambda: grow(
            root, expand, root_selection, interior_selection, simulations, invalid, extra_data
        )
    )()
    if simulations == 40:
        assert (tree.embeddings["depth"] >= DEEPEST).any()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), expected, tree)
    for name in ("children_index", "children_visits", "node_visits", "parents"):
        np.testing.assert_array_equal(expected[name], tree[name])

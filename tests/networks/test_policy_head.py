"""The decoder: causal, and arranged as in the paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.attention import BlockConfig, FromHeads, ToHeads, attend
from networks.policy_head import PolicyHead

CELLS, TOKENS, VOCABULARY = 5, 4, 9
TOKEN_ROWS = np.array([7, 2, 5, 0])


def all_logits(head: PolicyHead, embedding, tokens):
    """Logits (k, V) of each token of ONE action after those before it."""
    memory = head.remember(embedding)
    features, cache = head.start(memory)
    rest, _ = head.extend(memory, cache, tokens[None, :-1], jnp.ones((), jnp.int32))
    return jnp.concatenate([head.predict(features)[None], rest[0]])


def make(dtype: str = "float32", remat: bool = False):
    """A head, parameters none of which is zero, an embedding and tokens, all different."""
    block = BlockConfig(heads=2, head_dim=4, mlp_factor=2, dtype=jnp.dtype(dtype))
    head = PolicyHead(TOKENS, VOCABULARY, width=8, layers=2, block=block, remat=remat)
    embedding = jax.random.normal(jax.random.key(0), (CELLS, 6)).astype(dtype)
    tokens = jnp.asarray(TOKEN_ROWS, jnp.int32)
    init = functools.partial(head.init, method=all_logits)
    shapes = jax.eval_shape(init, jax.random.key(1), embedding, tokens)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), shapes)
    return head, params, embedding, tokens


@pytest.mark.parametrize(
    ("dtype", "remat"),
    [("float32", False), pytest.param("bfloat16", True, marks=pytest.mark.slow)],
)
def test_a_token_is_seen_by_all_later_ones_and_no_earlier_one(dtype, remat):
    """By the gradient of the logits in the embeddings of the tokens."""
    head, params, embedding, tokens = make(dtype, remat)

    @jax.jit
    @jax.jacrev
    def derivative(table):
        changed = {"params": {**params["params"], "token_embedding": {"embedding": table}}}
        logits = head.apply(changed, embedding, tokens, method=all_logits)
        assert logits.dtype == jnp.float32
        return (logits * jnp.cos(jnp.arange(VOCABULARY))).sum(axis=1)

    size = abs(derivative(params["params"]["token_embedding"]["embedding"])).max(axis=-1)
    sees = np.arange(TOKENS)[:, None] > np.arange(TOKENS)
    by_token = np.asarray(size)[:, TOKEN_ROWS]
    assert (by_token[~sees] == 0).all()
    assert by_token[sees].min() > 1e-3
    assert size[:, -1].min() > 1e-3, "all see START, which has the last row"


def test_it_is_the_decoder_of_the_paper():
    """Without a cache, all symbols at once."""
    head, params, embedding, tokens = make()
    found = jax.jit(functools.partial(head.apply, method=all_logits))(params, embedding, tokens)
    params = params["params"]

    def norm(x, at):
        x = x - x.mean(axis=-1, keepdims=True)
        return x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * at["scale"] + at["bias"]

    symbols = np.concatenate([[VOCABULARY], TOKEN_ROWS[:-1]])
    x = params["token_embedding"]["embedding"][symbols] + params["positions"]
    causal = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))
    for layer in range(2):
        at, memory = (params[f"{name}_{layer}"] for name in ("decoder", "to_memory"))

        def run(module, name, *given, at=at):
            return module.apply({"params": at[name]}, *given)

        x = norm(x, at["LayerNorm_0"])
        attended = attend(run(ToHeads(head.block, 3), "ToHeads_0", x), mask=causal)
        x = x + run(FromHeads(head.block), "FromHeads_0", x, attended)
        x = norm(x, at["LayerNorm_1"])
        query = run(ToHeads(head.block, 1), "ToHeads_1", x)
        seen = ToHeads(head.block, 2).apply({"params": memory}, embedding)
        x = x + run(FromHeads(head.block), "FromHeads_1", x, attend(query, seen))
    expected = jax.nn.relu(x) @ params["logits"]["kernel"] + params["logits"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)

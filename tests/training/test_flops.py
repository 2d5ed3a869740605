"""Model FLOPs: against formulas of the layers, against XLA, and against the gradient's program."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from networks.network import NetworkConfig
from training import flops
from training.config import Config, GameConfig
from training.flops import costs_of, count_flops, peak_flops


def block(tokens: int, width: int, heads: int, factor: int) -> int:
    """The map from the heads of so many features together, and the MLP."""
    return 2 * tokens * width * (heads + 2 * factor * width)


def by_hand(config: Config, has_actions: bool = True) -> int:
    """FLOPs of one evaluation, with or without actions drawn, from the sizes of the layers."""
    c, space = config.network, config.action_space
    width, policy = c.width, c.policy_width
    heads, policy_heads = c.heads * c.head_dim, c.policy_heads * c.policy_head_dim
    memory = torso = 0
    # Of each grid and the mode that is missing in it, and of each mode and the other two.
    for u, v, w in (np.roll(space.sides, shift) for shift in range(3)):
        inputs = (1 + config.game.history) * w + 1
        torso += 2 * u * v * (inputs * width + 1)
        cells = u * (v + w)
        stage = 2 * cells * width * 3 * heads + 4 * cells * (v + w) * heads
        torso += c.layers * (stage + block(cells, width, heads, c.mlp_factor))
        memory += u * v
    tokens = 1 + has_actions * config.search.num_actions * (space.num_tokens - 1)
    if has_actions:
        decoder = 2 * memory * width * 2 * policy_heads + 4 * tokens * memory * policy_heads
    else:
        # The maps of keys and values are of one query, and each head mixes the cells.
        decoder = 2 * width * 2 * policy_heads + 4 * memory * width * c.policy_heads
    decoder += 2 * tokens * policy * 4 * policy_heads
    decoder += 4 * tokens * space.num_tokens * policy_heads
    decoder += 2 * block(tokens, policy, policy_heads, c.mlp_factor)
    logits = has_actions * 2 * tokens * policy * space.vocabulary
    value = 2 * c.value_width * (policy + 2 * c.value_width + c.quantiles)
    return torso + c.policy_layers * decoder + logits + value


def lookup(config: Config) -> int:
    """FLOPs by which the learner finds the rows of its tokens: a product, as it has a gradient."""
    c, space = config.network, config.action_space
    symbols = config.search.num_actions * (space.num_tokens - 1)
    return 2 * symbols * (space.vocabulary + 1) * c.policy_width


@pytest.fixture(scope="module")
def wide() -> Config:
    """Wide enough for matrix products to be nearly all there is; nothing of it runs."""
    network = NetworkConfig(
        width=128, head_dim=64, policy_width=256, policy_head_dim=64, token_size=3
    )
    return Config(game=GameConfig(targets=("matmul:3,3,3",)), network=network)


def test_the_count_is_that_of_the_layers(tiny, wide):
    # The attention of the tiny network is written as products and sums, in this one as einsum.
    network = dataclasses.replace(
        wide.network, layers=3, policy_layers=2, dtype="bfloat16", remat=True, separate_stages=True
    )
    for config in (tiny, wide, dataclasses.replace(wide, network=network)):
        assert costs_of(config).evaluation == by_hand(config)
    independent = dataclasses.replace(tiny.search, sampling="independent")
    same = costs_of(dataclasses.replace(tiny, search=independent)).evaluation
    assert same == by_hand(tiny)


def test_an_example_costs_three_evaluations(tiny, wide):
    for config in (tiny, wide):
        learner, costs = config.learner, costs_of(config)
        batch = learner.replay_batch + learner.demonstration_batch
        # Teacher forcing reads the same tokens as the search samples.
        expected = 3 * learner.updates_per_step * batch * by_hand(config)
        assert costs.learning == expected
        assert costs.of_step(10) == 10 * costs.move + expected


def test_only_a_tree_draws_actions_in_its_simulations(tiny):
    root, simulations = by_hand(tiny), tiny.search.num_simulations
    assert costs_of(tiny).move == root + simulations * by_hand(tiny, has_actions=False)
    deeper = dataclasses.replace(tiny.search, num_simulations=9)
    assert costs_of(dataclasses.replace(tiny, search=deeper)).move == (1 + 9) * root


def test_positions_that_are_searched_again_are_counted(tiny):
    learner = dataclasses.replace(tiny.learner, reanalysed_share=0.5)
    costs = costs_of(dataclasses.replace(tiny, learner=learner))
    more = costs.learning - costs_of(tiny).learning
    assert more == learner.updates_per_step * 0.5 * learner.replay_batch * costs.move


def loss_of(config: Config):
    """A loss of teacher forcing, and its arguments."""
    network = config.agent
    params, _, state, tokens = flops._inputs(network, config.search.num_actions)
    score = functools.partial(network.apply, method="score")

    def loss(params, state, tokens):
        log_probs, quantiles = score(params, state, tokens)
        return log_probs.sum() + quantiles.sum()

    return loss, (params, state, tokens)


def test_the_backward_pass_costs_twice_the_forward_pass(wide):
    loss, inputs = loss_of(wide)
    ratio = count_flops(jax.grad(loss), *inputs) / count_flops(loss, *inputs)
    # Besides, sums over layer norms are differentiated, and the input is not.
    assert ratio == pytest.approx(3.0, rel=0.02)


def test_xla_counts_the_same(wide):
    """It counts element-wise work too, and the scans over one layer once."""
    loss, inputs = loss_of(wide)
    counted = count_flops(loss, *inputs)
    assert counted == by_hand(wide) + lookup(wide)
    xla = jax.jit(loss).lower(*inputs).cost_analysis()["flops"]
    assert counted < xla < 1.1 * counted


def test_loops_and_branches():
    x = jnp.ones((3, 3))

    def repeated(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: y @ x, x)

    def branching(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)

    def endless(x):
        return jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ y, x)

    product = 2 * 3**3
    assert count_flops(repeated, x) == 5 * product
    assert count_flops(branching, x) == 2 * product
    assert count_flops(lambda x: (x[:, :, None] * x).sum(1), x) == product
    assert count_flops(lambda x: jnp.exp(x + x).sum(), x) == 0
    with pytest.raises(ValueError, match="fixed length"):
        count_flops(endless, x)


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
    ],
)
def test_peaks_go_by_the_name_of_the_device(kind, teraflops):
    assert peak_flops(kind) == teraflops * 1e12


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40", "TPU v9", "Tesla T4"])
def test_an_unknown_device_has_no_peak(kind):
    assert peak_flops(kind) is None


def test_the_peak_is_that_of_all_devices(tiny, monkeypatch):
    monkeypatch.setattr(flops, "peak_flops", lambda _kind: 5.0)
    assert costs_of(dataclasses.replace(tiny, devices=4)).peak == 20.0

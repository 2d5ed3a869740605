"""The configuration of the paper: its network has the paper's size, and none of it is allocated."""

import dataclasses
import math
import pathlib
import runpy

import jax
import jax.numpy as jnp
import pytest

from training.config import Config

PAPER = pathlib.Path(__file__).parents[2] / "tpu_configs" / "paper.py"


@pytest.fixture(scope="module")
def paper() -> Config:
    return runpy.run_path(str(PAPER))["config"]


def count_by_part(config: Config) -> dict[str, int]:
    """Parameters of the torso, the policy head and the value head."""
    state = jax.eval_shape(
        config.rules.init, jax.ShapeDtypeStruct((config.side,) * 3, config.ring.dtype)
    )
    tokens = jax.ShapeDtypeStruct((1, config.action_space.num_tokens), jnp.int32)
    shapes = jax.eval_shape(
        lambda key, *given: config.agent.init(key, *given, method="score"),
        jax.random.key(0),
        state,
        tokens,
    )
    return {
        name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
        for name, part in shapes["params"].items()
    }


def test_the_paper_plays_tensors_of_side_25_with_15_tokens_of_3125_values(paper):
    dataclasses.replace(paper, devices=1).validate()
    space = paper.action_space
    assert (paper.side, space.num_tokens, space.vocabulary) == (25, 15, 3125)
    assert len(paper.targets) == 20


def test_the_paper_has_202_million_parameters(paper):
    """Block by block; the paper's text gives the sizes, not the sum."""

    def block(width: int, memory: int, heads: int, norms: int) -> int:
        """Attention of `width` features to `memory` features, each head with 32."""
        attention = 32 * heads * (2 * width + 2 * memory) + width
        mlp = 2 * 4 * width * width + 5 * width
        return attention + mlp + 2 * (width + norms)

    embeddings = 3 * ((8 * 25 + 1) * 512 + 512 + 2 * 625)
    torso = embeddings + 8 * block(512, 512, 16, norms=512)
    layer = block(2048, 2048, 32, norms=2048) + block(2048, 512, 32, norms=2048 + 512)
    policy = 2 * (layer + 2 * 2 * 2048) + (3126 + 15) * 2048 + 2048 * 3125 + 3125
    value = 2048 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 8 + 8
    assert count_by_part(paper) == {"torso": torso, "policy": policy, "value": value}
    assert [round(x / 1e6, 1) for x in (torso, policy, value)] == [25.5, 174.4, 1.6]


def test_separate_stages_triple_the_blocks_of_the_torso(paper):
    network = dataclasses.replace(paper.network, separate_stages=True)
    parts = count_by_part(dataclasses.replace(paper, network=network))
    assert round(parts["torso"] / 1e6) == 76

"""Model FLOPs: what the arithmetic of the network costs, and what share of a card's peak that is.

Counted are the multiplications and additions of matrix products and of sums of products, in the
network as it is traced: element-wise work is left out, and so is what is computed a second time to
save memory. A learned example has as many actions as are sampled in an evaluation, and costs three
of these, one forward and two backward (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); that its
tokens are looked up by a product with one-hot rows does not count.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from networks.network import AgentNetwork
from search.sampling import sample_actions
from training.config import Config

# Dense bfloat16 operations a second of what JAX calls one device, from the data sheets of the
# makers. TPU v2 and v3 show each of the two cores of a chip as a device, TPU7x too.
_PEAKS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}


@dataclasses.dataclass(frozen=True)
class Costs:
    """Model FLOPs of a run.

    Attributes:
        evaluation: of the root of a search: the state is encoded and K actions are drawn.
        move: of the whole search for a move. Where it looks no further than one move ahead, its
            simulations draw no actions.
        learning: of all updates of a step, positions that are searched again included.
        peak: of all devices in a second, or None where it is not known.
    """

    evaluation: float
    move: float
    learning: float
    peak: float | None

    def of_step(self, moves: float) -> float:
        """Of a step that made so many moves in self-play."""
        return moves * self.move + self.learning


def costs_of(config: Config) -> Costs:
    """The costs of a run on the devices there are."""
    learner, search = config.learner, config.search
    evaluation = _evaluation_flops(config.agent, search.num_actions, search.sampling)
    simulation = _value_flops(config.agent) if search.is_one_ply else evaluation
    move = evaluation + search.num_simulations * simulation
    batch = learner.replay_batch + learner.demonstration_batch
    update = 3 * batch * evaluation
    update += learner.reanalysed_share * learner.replay_batch * move
    peak = peak_flops(jax.devices()[0].device_kind)
    return Costs(
        evaluation=evaluation,
        move=move,
        learning=learner.updates_per_step * update,
        peak=peak and peak * config.num_devices,
    )


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 operations a second of a device; None if it is not in the table.

    The names of GPUs go on with their memory and their socket: NVIDIA A100-SXM4-40GB.
    """
    if device_kind.startswith("TPU"):
        return _PEAKS.get(device_kind)
    words = device_kind.replace("-", " ").split()
    names = [name for name in _PEAKS if name.split() == words[: len(name.split())]]
    return _PEAKS[max(names, key=len)] if names else None


@functools.lru_cache
def _evaluation_flops(network: AgentNetwork, num_actions: int, sampling: str) -> float:
    params, key, state, _ = _inputs(network, num_actions)
    sample = functools.partial(sample_actions, num_actions=num_actions, sampling=sampling)
    return count_flops(lambda *args: sample(network, *args), params, key, state)


@functools.lru_cache
def _value_flops(network: AgentNetwork) -> float:
    params, _, state, _ = _inputs(network, 1)
    return count_flops(functools.partial(network.apply, method="evaluate"), params, state)


def _inputs(network: AgentNetwork, num_actions: int) -> tuple:
    """Shapes of parameters, a key, a state and the tokens of K actions."""
    space = network.space
    key = jax.eval_shape(lambda: jax.random.key(0))
    tensor = jax.ShapeDtypeStruct((space.side,) * 3, jnp.int32)
    state = jax.eval_shape(network.game.init, tensor)
    tokens = jax.ShapeDtypeStruct((num_actions, space.num_tokens), jnp.int32)
    init = functools.partial(network.init, method="score")
    return jax.eval_shape(init, key, state, tokens), key, state, tokens


def count_flops(function: Callable, *args: object) -> float:
    """FLOPs of the matrix products and sums of products of ``function``, which is only traced.

    Loops count as often as they run, and of several branches the dearest counts.

    Args:
        function: a function of arrays.
        *args: arrays, or trees of arrays or of their shapes.

    Raises:
        ValueError: the function holds a loop whose length is not known before it runs.
    """
    return _sum_of_flops(executed(jax.make_jaxpr(function)(*args).jaxpr))


class Executed(NamedTuple):
    """An equation of a program that calls no other program, or a kernel.

    Attributes:
        equation: the equation.
        times: how often it is executed.
        flops: of each time.
    """

    equation: core.JaxprEqn
    times: int
    flops: float


def _sum_of_flops(equations: list[Executed]) -> float:
    """Of all times that they are executed."""
    return sum(each.times * each.flops for each in equations)


def executed(jaxpr: core.Jaxpr) -> list[Executed]:
    """What a program executes; see `count_flops` for loops, branches and the error raised."""
    makers = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    found = []
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        # The program of a kernel is that of one tile.
        is_kernel = "cost_estimate" in parameters
        parts = [] if is_kernel else [executed(sub) for sub in _inner_jaxprs(parameters)]
        if not parts:
            found.append(Executed(equation, 1, _flops_of(equation, makers)))
        if name == "while" and any(map(_sum_of_flops, parts)):
            raise ValueError(
                "a loop without a fixed length has matrix products, which cannot be told"
            )
        if name == "cond":
            parts = [max(parts, key=_sum_of_flops)]
        times = parameters.get("length", 1)
        found += [each._replace(times=times * each.times) for part in parts for each in part]
    return found


def _flops_of(equation: core.JaxprEqn, makers: dict) -> float:
    """Of one that calls no other program, whose operands come from ``makers``."""
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "reduce_sum":
        # Small attentions are written as products and sums (networks/attention.py).
        (summed,) = equation.invars
        return 2.0 * summed.aval.size if _is_product(summed, makers) else 0.0
    return float(parameters["cost_estimate"].flops) if "cost_estimate" in parameters else 0.0


def _is_product(variable: object, makers: dict) -> bool:
    """Whether a variable is a product of two arrays, changes of its dtype aside."""
    if isinstance(variable, core.Literal) or variable not in makers:
        return False
    maker = makers[variable]
    if maker.primitive.name == "convert_element_type":
        return _is_product(maker.invars[0], makers)
    return maker.primitive.name == "mul" and all(x.aval.shape for x in maker.invars)


def _inner_jaxprs(parameters: dict) -> Iterator[core.Jaxpr]:
    """The programs that an equation calls."""
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else [value]:
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each

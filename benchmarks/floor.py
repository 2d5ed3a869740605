"""What a step's matrix products and functions take by themselves: no step of XLA's can be shorter.

    python benchmarks/floor.py --settings default

Each matrix product of the training step, as it is traced, is timed as a program of its own, which
makes it again and again, so that its operands are as near as they can be; and so are exponentials
and the like, as one array in cache. What is left out: layouts, sums, attention between few tokens
(products and sums on a CPU), random numbers, the game, and kernels of our own. One JSON line a
setting.
"""

import collections
import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from reporting import command_line, origin, report
from throughput import SETTINGS

import networks.torso
from training.config import Config
from training.flops import executed
from training.mesh import make_mesh
from training.step import compiler_options, make_init, make_step

_FUNCTIONS = {
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "log": jnp.log,
    "logistic": jax.nn.sigmoid,
    "rsqrt": jax.lax.rsqrt,
    "tanh": jnp.tanh,
}
# Entries of the array that these are timed with.
_ENTRIES = 2**16
# Seconds of a window, of which the median of some counts.
_SECONDS, _WINDOWS = 0.1, 5


@dataclasses.dataclass(frozen=True)
class Product:
    """Shapes and dtypes of two operands, and the dimensions as of `jax.lax.dot_general`."""

    operands: tuple[tuple[tuple[int, ...], str], ...]
    dimensions: tuple


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["default"])
    options = parser.parse_args()
    networks.torso.is_fused = lambda *_: False
    for name in options.settings:
        report(
            {"setting": name, **_measure(SETTINGS[name]), **origin(options.commit)}, options.output
        )


def _measure(config: Config) -> dict[str, object]:
    mesh = make_mesh(config)
    traced = make_step(config, mesh).trace(jax.eval_shape(make_init(config, mesh), 0))
    products: collections.Counter[Product] = collections.Counter()
    entries: collections.Counter[str] = collections.Counter()
    flops = 0.0
    for equation, times, each in executed(traced.jaxpr.jaxpr):
        name = equation.primitive.name
        if name == "dot_general":
            operands = tuple((x.aval.shape, str(x.aval.dtype)) for x in equation.invars)
            products[Product(operands, equation.params["dimension_numbers"])] += times
            flops += times * each
        elif name in _FUNCTIONS:
            entries[name] += times * equation.outvars[0].aval.size
    made_with = compiler_options(config, jax.default_backend())
    of_products = sum(
        times * _seconds(_multiplying(product), made_with) for product, times in products.items()
    )
    of_functions = {
        name: count * _seconds(_applying(_FUNCTIONS[name]), made_with) / _ENTRIES
        for name, count in entries.items()
    }
    moves = config.selfplay.num_games * config.selfplay.moves_per_step
    evaluations = moves * (config.search.num_simulations + 1)
    floor = of_products + sum(of_functions.values())
    return {
        "different_products": len(products),
        "gigaflops": round(flops / 1e9, 3),
        "products_milliseconds": round(1e3 * of_products, 1),
        "functions_milliseconds": {name: round(1e3 * s, 1) for name, s in of_functions.items()},
        "floor_milliseconds": round(1e3 * floor, 1),
        "most_evaluations_per_second": round(evaluations / floor),
    }


def _multiplying(product: Product) -> Callable[[jax.Array], jax.Array]:
    """One product more, by a number that is 0 but that has to be there first."""
    keys = jax.random.split(jax.random.key(0), 2)
    first, second = (
        jax.random.normal(key, shape).astype(dtype)
        for key, (shape, dtype) in zip(keys, product.operands, strict=True)
    )

    def multiply(zero: jax.Array) -> jax.Array:
        # To the smaller one, which costs less.
        if first.size < second.size:
            operands = first + zero.astype(first.dtype), second
        else:
            operands = first, second + zero.astype(second.dtype)
        return jax.lax.dot_general(*operands, product.dimensions)

    return multiply


def _applying(function: Callable) -> Callable[[jax.Array], jax.Array]:
    """The function of an array in cache, to which a 0 is added."""
    x = jax.random.uniform(jax.random.key(0), (_ENTRIES,), minval=0.5, maxval=1.5)
    return lambda zero: function(x + zero)


def _seconds(make: Callable[[jax.Array], jax.Array], made_with: dict) -> float:
    """Of one call, the median over windows of many that follow each other in one program."""

    # All of an array that is carried has to be made.
    def again(_: int, made: jax.Array) -> jax.Array:
        return make(0.0 * made.ravel()[0])

    @jax.jit(compiler_options=made_with)
    def repeat(times: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, again, make(jnp.zeros(())))

    def timed(times: int) -> float:
        began = time.perf_counter()
        repeat(times).block_until_ready()
        return time.perf_counter() - began

    timed(1)
    times = max(1, round(4 * _SECONDS / max(timed(4), 1e-6)))
    return statistics.median(timed(times) for _ in range(_WINDOWS)) / times


if __name__ == "__main__":
    main()

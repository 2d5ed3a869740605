"""How fast the training step is, where its time goes, and how far that is from the device's peak.

    python benchmarks/throughput.py --settings 2,2,2 3,3,3 --output FILE
    python benchmarks/throughput.py --settings paper --games 64 --alone evaluations update

The step is timed while it learns from demonstrations alone and while it plays too, and so are the
evaluations by the network that it takes to play; the difference is the tree and the game. Games
have just begun, the network is untrained. With ``--alone`` no step is compiled and nothing is
played: its evaluations, or its updates, are programs of their own. The peak is that of a large
bfloat16 matrix product on the same device (float32 on a CPU). One JSON line a setting.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from reporting import ROOT, command_line, origin, report

import networks.fused_stage
import networks.torso
from networks.network import NetworkConfig
from search.config import SearchConfig
from search.tree import Simulator
from train import load_config
from training.config import Config, GameConfig, LearnerConfig, SelfPlayConfig
from training.flops import costs_of
from training.learning import Experience, learn
from training.mesh import make_mesh
from training.step import TrainState, compiler_options, make_init, make_step

# The first step that plays; a number that no measurement reaches by itself.
_PLAYS = 1_000_000
# Evaluations of a tree that are timed together.
_EVALUATIONS = 8

_SMALL = NetworkConfig(
    width=64,
    layers=2,
    heads=4,
    policy_width=96,
    policy_heads=6,
    value_width=128,
    dtype="bfloat16",
)
_MIDDLE = NetworkConfig(
    width=128,
    layers=3,
    heads=4,
    head_dim=32,
    policy_width=128,
    policy_layers=2,
    policy_head_dim=32,
    value_width=256,
    dtype="bfloat16",
)
_LARGE = NetworkConfig(
    width=256,
    layers=6,
    heads=8,
    head_dim=32,
    mlp_factor=4,
    policy_width=256,
    policy_layers=2,
    policy_heads=8,
    policy_head_dim=32,
    value_width=512,
    dtype="bfloat16",
)
_PAPER = load_config(ROOT / "tpu_configs" / "paper.py")
SETTINGS: dict[str, Config] = {
    "default": Config(),
    "2,2,2": Config(
        network=_SMALL,
        search=SearchConfig(num_actions=16, num_simulations=16),
        selfplay=SelfPlayConfig(num_games=4096),
        learner=LearnerConfig(updates_per_step=4, replay_batch=2048, demonstration_batch=2048),
    ),
    "3,3,3": Config(
        game=GameConfig(targets=("matmul:3,3,3",)),
        network=_MIDDLE,
        search=SearchConfig(num_actions=16, num_simulations=16),
        selfplay=SelfPlayConfig(num_games=1024),
        learner=LearnerConfig(updates_per_step=4, replay_batch=1024, demonstration_batch=1024),
    ),
    "4,4,4": Config(
        game=GameConfig(targets=("matmul:4,4,4",)),
        network=dataclasses.replace(_LARGE, token_size=4),
        search=SearchConfig(num_actions=32, num_simulations=32),
        selfplay=SelfPlayConfig(num_games=512, moves_per_step=1),
        learner=LearnerConfig(
            updates_per_step=1, replay_batch=512, demonstration_batch=512, microbatches=8
        ),
    ),
    # Its step as it is, but for the games in progress and the parts of a batch, of which so much
    # can be kept that no layer is computed twice.
    "paper": dataclasses.replace(
        _PAPER,
        network=dataclasses.replace(_PAPER.network, remat=False),
        learner=dataclasses.replace(_PAPER.learner, microbatches=64),
        selfplay=SelfPlayConfig(num_games=16, moves_per_step=1, kept_games=1),
    ),
}


def main() -> None:
    """Runs the command line."""
    options = _parse()
    if options.kernel != "hopper":
        networks.fused_stage.is_for_hopper = lambda *_: False
    if options.kernel == "layers":
        networks.torso.is_fused = lambda *_: False
    peak, copy = _matmul_peak(), _copy_bandwidth()
    for name in options.settings:
        config = _config(name, options)
        measured = _measure_alone(config, options) if options.alone else _measure(config, options)
        for part in ("acting", "network", "learning"):
            if rate := measured.get(f"{part}_teraflops"):
                measured[f"{part}_share_of_peak"] = round(rate / peak, 4)
        line = {
            "setting": name,
            "kernel": options.kernel,
            **measured,
            "peak_teraflops": round(peak, 1),
            "copy_gigabytes_per_second": round(copy, 1),
            **origin(options.commit),
        }
        report(line, options.output)


def _parse() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["default"])
    parser.add_argument("--games", type=int, help="games in progress; the setting's")
    parser.add_argument("--simulations", type=int, help="of each move; the setting's")
    parser.add_argument("--microbatches", type=int, help="parts of a batch; the setting's")
    parser.add_argument(
        "--kernel",
        choices=("layers", "triton", "hopper"),
        default="hopper",
        help="what a stage of the torso is in play, at most (hopper)",
    )
    parser.add_argument(
        "--alone",
        nargs="+",
        choices=("evaluations", "update"),
        default=(),
        help="instead of the step, these parts of it, each compiled by itself",
    )
    parser.add_argument("--windows", type=int, default=5, help="of which the median counts (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window, at least (1)")
    return parser.parse_args()


def _config(name: str, options: argparse.Namespace) -> Config:
    config = SETTINGS[name]
    changes = {
        "learner": {"demonstration_steps": _PLAYS}
        | ({"microbatches": options.microbatches} if options.microbatches else {}),
        "selfplay": {"num_games": options.games} if options.games else {},
        "search": {"num_simulations": options.simulations} if options.simulations else {},
    }
    sections = {
        section: dataclasses.replace(getattr(config, section), **fields)
        for section, fields in changes.items()
    }
    config = dataclasses.replace(config, devices=1, **sections)
    config.validate()
    return config


def _measure(config: Config, options: argparse.Namespace) -> dict[str, object]:
    """The times of one setting, and what follows from them."""
    mesh = make_mesh(config)
    init = make_init(config, mesh)
    began = time.perf_counter()
    step = make_step(config, mesh).lower(jax.eval_shape(init, 0)).compile()
    compile_seconds = time.perf_counter() - began
    state = init(0)
    evaluate, moves_of_it = _evaluations(config, state)

    def advance() -> None:
        nonlocal state
        state, output = step(state)
        jax.block_until_ready(output)

    update = _seconds(advance, options)
    network = _seconds(evaluate, options) / moves_of_it * config.selfplay.moves_per_step
    state = state._replace(step=jax.device_put(jnp.int32(_PLAYS), state.step.sharding))
    whole = _seconds(advance, options)
    play = whole - update
    moves = config.selfplay.num_games * config.selfplay.moves_per_step
    each, costs = config.search.num_simulations + 1, costs_of(config)
    return {
        **_setting(config, state),
        "compile_seconds": round(compile_seconds, 1),
        "evaluations_per_second": round(moves * each / whole),
        "moves_per_second": round(moves / whole, 1),
        "acting_evaluations_per_second": round(moves * each / play),
        "step_milliseconds": round(1e3 * whole, 3),
        "tree_and_game_milliseconds": round(1e3 * (play - network), 3),
        "megaflops_per_evaluation": round(costs.evaluation / 1e6, 2),
        "megaflops_per_move": round(costs.move / 1e6, 2),
        "acting_teraflops": round(moves * costs.move / play / 1e12, 4),
        **_of_network(config, network),
        **_of_update(config, update),
        "peak_memory_gigabytes": _peak_memory(),
    }


def _measure_alone(config: Config, options: argparse.Namespace) -> dict[str, object]:
    """The times of parts of a step that are programs of their own."""
    mesh = make_mesh(config)
    state = jax.block_until_ready(make_init(config, mesh)(0))
    measured, compile_seconds = _setting(config, state), 0.0
    if "evaluations" in options.alone:
        began = time.perf_counter()
        evaluate, moves_of_it = _evaluations(config, state)
        compile_seconds += time.perf_counter() - began
        network = _seconds(evaluate, options) / moves_of_it * config.selfplay.moves_per_step
        measured |= _of_network(config, network)
    if "update" in options.alone:
        began = time.perf_counter()
        update = _updates(config, mesh, state)
        compile_seconds += time.perf_counter() - began
        measured |= _of_update(config, _seconds(update, options))
    measured["compile_seconds"] = round(compile_seconds, 1)
    return {**measured, "peak_memory_gigabytes": _peak_memory()}


def _setting(config: Config, state: TrainState) -> dict[str, object]:
    return {
        "target": config.game.targets[0],
        "targets": len(config.game.targets),
        "games": config.selfplay.num_games,
        "simulations": config.search.num_simulations,
        "actions": config.search.num_actions,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    }


def _of_network(config: Config, seconds: float) -> dict[str, object]:
    """What follows from the time of a step's evaluations."""
    moves = config.selfplay.num_games * config.selfplay.moves_per_step
    return {
        "network_milliseconds": round(1e3 * seconds, 3),
        "network_teraflops": round(moves * costs_of(config).move / seconds / 1e12, 4),
    }


def _of_update(config: Config, seconds: float) -> dict[str, object]:
    """What follows from the time of a step's updates."""
    learner = config.learner
    batch = learner.replay_batch + learner.demonstration_batch
    return {
        "microbatches": learner.microbatches,
        "learner_positions_per_second": round(batch * learner.updates_per_step / seconds),
        "update_milliseconds": round(1e3 * seconds, 3),
        "learning_teraflops": round(costs_of(config).learning / seconds / 1e12, 4),
    }


def _peak_memory() -> float | None:
    """Gigabytes that the process has had at most on the device; None where it is not told."""
    memory = jax.devices()[0].memory_stats() or {}
    return round(memory.get("peak_bytes_in_use", 0) / 1e9, 2) or None


def _updates(config: Config, mesh: Mesh, state: TrainState) -> Callable[[], None]:
    """The updates of a step, made from demonstrations; it takes the state's parameters over."""

    def update(params: dict, optimizer: optax.OptState, key: jax.Array, experience: Experience):
        return learn(config, key, params, optimizer, experience, ())

    mapped = jax.shard_map(
        update, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )
    options = compiler_options(config, jax.default_backend())
    learned = state.params, state.optimizer
    given = state.key, Experience(state.step, state.replay, state.best)
    jitted = jax.jit(mapped, donate_argnums=(0, 1), compiler_options=options)
    compiled = jitted.lower(*learned, *given).compile()

    def advance() -> None:
        nonlocal learned
        *learned, _, metrics = compiled(*learned, *given)
        jax.block_until_ready(metrics)

    return advance


def _evaluations(config: Config, state: TrainState) -> tuple[Callable[[], None], float]:
    """Some evaluations of all games as the search makes them, and to how many moves they amount."""
    search = config.search
    # A look at the leaves makes a whole move of one evaluation.
    count, each = (1, 1) if search.is_one_ply else (_EVALUATIONS, search.num_simulations + 1)

    def evaluate(params: dict, keys: jax.Array, states: object) -> jax.Array:
        simulator = Simulator(config.agent, search, params, config.permutations)

        def one(index: jax.Array, carry: tuple) -> tuple:
            total, states = carry
            found = simulator.evaluate(jax.vmap(jax.random.fold_in, (0, None))(keys, index), states)
            total += found.value.sum() + sum(x.sum() for x in found.sampled)
            if search.is_one_ply:
                total += simulator.look(found.node, search.num_simulations).value.sum()
            # Other states each time, so that nothing can be computed once for all.
            return total, jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), states)

        return jax.lax.fori_loop(0, count, one, (jnp.zeros(()), states))[0]

    keys = jax.random.split(jax.random.key(0), config.selfplay.num_games)
    # The step takes its state over.
    inputs = jax.tree.map(jnp.copy, (state.params, keys, state.episodes.state))
    options = compiler_options(config, jax.default_backend())
    compiled = jax.jit(evaluate, compiler_options=options).lower(*inputs).compile()
    return lambda: jax.block_until_ready(compiled(*inputs)), count / each


def _seconds(call: Callable[[], None], options: argparse.Namespace) -> float:
    """Median over the windows of the mean time of a call; a long call is a window of its own."""
    call()
    began = time.perf_counter()
    call()
    count = max(1, round(options.seconds / (time.perf_counter() - began)))
    windows = []
    for _ in range(options.windows):
        began = time.perf_counter()
        for _ in range(count):
            call()
        windows.append((time.perf_counter() - began) / count)
    return statistics.median(windows)


def _matmul_peak() -> float:
    """Tera-operations a second of a large product of random matrices."""
    is_cpu = jax.devices()[0].platform == "cpu"
    side, dtype = (2048, jnp.float32) if is_cpu else (8192, jnp.bfloat16)
    a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
    return 2 * side**3 / _repeated(jax.jit(jnp.matmul), a, b) / 1e12


def _copy_bandwidth() -> float:
    """Gigabytes a second, read and written, of a negation of a large array."""
    is_cpu = jax.devices()[0].platform == "cpu"
    x = jnp.ones(1 << (26 if is_cpu else 30), jnp.float32)
    return 2 * x.nbytes / _repeated(jax.jit(jnp.negative), x) / 1e9


def _repeated(function: Callable[..., jax.Array], *inputs: jax.Array, times: int = 20) -> float:
    """Seconds of a call, of which many are on their way at once."""
    jax.block_until_ready(function(*inputs))
    windows = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            result = function(*inputs)
        jax.block_until_ready(result)
        windows.append((time.perf_counter() - began) / times)
    return statistics.median(windows)


if __name__ == "__main__":
    main()

"""The compiled training step."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tensorgame.algorithms.factorization import Factorization
from training.config import Config
from training.learning import accumulate, make_optimizer
from training.losses import Losses
from training.mesh import make_mesh
from training.step import make_init, make_step

METRICS = {
    "games",
    "solved",
    "target_games",
    "target_solved",
    "moves",
    "evaluations",
    "return",
    "continued",
    "rewritten",
    "root_entropy",
    "tree_depth",
    "gradient_norm",
    "update_norm",
    "replay_age",
    "policy_loss",
    "value_loss",
    "demonstration_policy_loss",
    "demonstration_value_loss",
    "value_error",
    "demonstration_value_error",
}


def check_found(config: Config, found) -> list[int]:
    """Proves what was found; returns the numbers of moves."""
    lengths = []
    (target,) = config.targets
    for moves, actions in zip(found.moves, found.actions, strict=True):
        assert not actions[moves:].any()
        if moves <= config.max_moves:
            u, v, w = (actions[:moves, i, :size].T for i, size in enumerate(target.shape))
            Factorization(target=target, modulus=config.ring.modulus, u=u, v=v, w=w).check()
        lengths.append(int(moves))
    return lengths


def test_only_the_first_step_compiles(trainer):
    state, _ = trainer.run(1)
    compiled = []

    def listen(event: str, _seconds: float, **_kwargs) -> None:
        compiled.extend([event] if "backend_compile" in event else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(3):
            state, _ = trainer.step(state)
        assert not compiled
        jax.jit(lambda x: x + 1)(1.0)
        assert compiled, "the listener hears of compilations"
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_step_returns_what_it_takes(trainer):
    before = trainer.initial
    after, _ = trainer.run(1)

    def same(a, b):
        assert jax.typeof(a) == jax.typeof(b)
        assert a.sharding == b.sharding

    jax.tree.map(same, after, before)


def test_metrics_are_finite_and_complete(trained):
    for output in trained[1]:
        assert set(output.metrics) == METRICS
        assert all(np.isfinite(value).all() for value in output.metrics.values())


def test_what_is_counted_adds_up(tiny, trained):
    state, outputs = trained
    assert sum(output.metrics["games"] for output in outputs) == state.replay.count.sum()
    moves = tiny.selfplay.num_games * tiny.selfplay.moves_per_step
    evaluations = moves * (tiny.search.num_simulations + 1)
    skipped = tiny.learner.demonstration_steps
    assert [output.metrics["evaluations"] for output in outputs] == (
        [0] * skipped + [evaluations] * (len(outputs) - skipped)
    )
    for output in outputs:
        (length,) = output.found.moves
        assert (output.metrics["solved"] > 0) == (length <= tiny.max_moves)
        metrics = output.metrics
        assert metrics["evaluations"] == metrics["moves"] * (tiny.search.num_simulations + 1)
        assert metrics["target_games"].tolist() == [metrics["games"]]
        assert metrics["target_solved"].sum() == metrics["solved"] <= metrics["games"]
        lengths = np.flatnonzero(metrics["target_solved"][0])
        assert not len(lengths) or lengths.min() == length
        assert (1 <= metrics["tree_depth"] <= tiny.max_moves) == (metrics["moves"] > 0)
        assert 0 <= output.metrics["root_entropy"] <= np.log(tiny.search.num_actions) + 1e-4


def test_the_first_steps_learn_from_demonstrations_alone(trainer):
    state, (output,) = trainer.run(1)
    assert output.metrics["games"] == output.metrics["policy_loss"] == 0
    assert output.metrics["demonstration_policy_loss"] > 0
    before = jax.device_get((trainer.initial.episodes, trainer.initial.replay))
    jax.tree.map(np.testing.assert_array_equal, (state.episodes, state.replay), before)
    changed = jax.tree.map(lambda a, b: (a != b).any(), state.params, trainer.initial.params)
    assert any(jax.tree.leaves(changed))


def test_the_same_seed_gives_the_same_run(trainer):
    (first, one), (second, other) = trainer.run(4), trainer.run(4)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_what_is_found_are_true_algorithms_over_the_integers(tiny, trained):
    lengths = [length for output in trained[1] for length in check_found(tiny, output.found)]
    assert min(lengths) == 2


def test_learning_lowers_the_losses(trained):
    for loss in ("demonstration_policy_loss", "demonstration_value_loss"):
        course = [output.metrics[loss] for output in trained[1]]
        assert np.mean(course[-20:]) < 0.9 * np.mean(course[:20])


# Communication -----------------------------------------------------------------------------------


CALLEES = r"(?:body|condition|to_apply|calls|\w+_computations?)=\{?(%[\w.-]+(?:, %[\w.-]+)*)"


def depths(hlo: str, operation: str) -> list[int]:
    """In how many loops each of these operations of a program is."""
    callers, found, name = {}, [], None
    for line in hlo.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            name = header[1]
            continue
        is_loop = " while(" in line
        for callees in re.findall(CALLEES, line):
            for callee in callees.split(", "):
                callers[callee.lstrip("%")] = (name, is_loop)
        if re.search(rf" {operation}(-start)?\(", line):
            found.append(name)

    def depth(computation: str) -> int:
        if computation not in callers:
            return 0
        caller, is_loop = callers[computation]
        return depth(caller) + is_loop

    return sorted(map(depth, found))


def check_communication(hlo: str, *, exchanges: bool = False) -> None:
    """One all-reduce in the loop over updates, one after it, and those that exchange best games."""
    *outside, inside = depths(hlo, "all-reduce")
    assert inside == 1
    assert set(outside) == {0}
    assert exchanges or len(outside) == 1
    assert set(depths(hlo, "all-gather")) == ({0} if exchanges else set())
    for other in ("all-to-all", "reduce-scatter", "collective-permute"):
        assert not depths(hlo, other)


DEVICES_SCRIPT = """
import pathlib
import jax, numpy as np
from networks.network import NetworkConfig
from search.config import SearchConfig
from training.config import *
from training.mesh import *
from training.step import *

config = CONFIG
mesh = make_mesh(config)
state, step = make_init(config, mesh)(config.seed), make_step(config, mesh)
step = step.lower(state).compile()
pathlib.Path("hlo.txt").write_text(step.as_text())
for number in range(STEPS):
    state, output = step(state)
    assert all(x.is_fully_replicated for x in jax.tree.leaves((state.params, output)))
    leaves = jax.tree.leaves(jax.device_get((state.params, output, state.best)))
    np.savez(f"{number}.npz", *leaves)
for x in jax.tree.leaves((state.episodes, state.replay)):
    assert len(x.sharding.device_set) == config.devices
    assert x.sharding.is_fully_replicated == (config.devices == 1)
"""


def run_elsewhere(config: Config, steps: int, folder: pathlib.Path, root: pathlib.Path) -> None:
    """Makes the first steps in a process with the devices of ``config``, a file of each."""
    devices = config.devices
    script = DEVICES_SCRIPT.replace("CONFIG", repr(config)).replace("STEPS", str(steps))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def load(path: pathlib.Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in file.files]


@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_several_devices_make_the_same_steps_as_one(trainer, devices, tmp_path, pytestconfig):
    config, steps = dataclasses.replace(trainer.config, devices=devices), 3
    run_elsewhere(config, steps, tmp_path, pytestconfig.rootpath)
    check_communication((tmp_path / "hlo.txt").read_text())
    for number in range(steps):
        state, outputs = trainer.run(number + 1)
        params, output = jax.device_get(state.params), outputs[-1]
        leaves = load(tmp_path / f"{number}.npz")
        others = jax.tree.unflatten(jax.tree.structure((params, output)), leaves)
        other_params, other = others
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            (other_params, other.metrics),
            (params, output.metrics),
        )
        check_found(config, other.found)
        jax.tree.map(np.testing.assert_array_equal, other.found, output.found)
    assert output.metrics["games"] > 0, "some games were finished"


@pytest.mark.slow
def test_the_best_games_are_the_same_on_several_devices(tiny, tmp_path, pytestconfig):
    learner = dataclasses.replace(tiny.learner, best_games_share=0.5, best_games=4, flips=5)
    selfplay = dataclasses.replace(tiny.selfplay, continued_share=0.5)
    # Over Z_2 games are solved by chance from the first.
    game = dataclasses.replace(tiny.game, ring="z2")
    steps, runs = 10, {}
    for devices in (1, 2):
        config = dataclasses.replace(
            tiny, game=game, selfplay=selfplay, learner=learner, devices=devices
        )
        folder = tmp_path / str(devices)
        folder.mkdir()
        run_elsewhere(config, steps, folder, pytestconfig.rootpath)
        runs[devices] = [load(folder / f"{number}.npz") for number in range(steps)]
    check_communication((folder / "hlo.txt").read_text(), exchanges=True)
    params = len(jax.tree.leaves(make_shapes(config).params))
    for one, two in zip(runs[1], runs[2], strict=True):
        for a, b in zip(one[:params], two[:params], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        for a, b in zip(one[-4:], two[-4:], strict=True):
            np.testing.assert_array_equal(a, b)
    lengths, prints = runs[2][-1][-4:-2]
    assert (lengths <= tiny.max_moves).sum() > 1
    assert lengths.min() == 2
    factors = prints[lengths <= tiny.max_moves, :2]
    assert len({each.tobytes() for each in factors}) == len(factors)


@pytest.mark.slow
def test_agents_are_the_runs_of_their_seeds(trainer, tmp_path, pytestconfig):
    config, steps = dataclasses.replace(trainer.config, seed=4, num_seeds=2, devices=2), 6
    run_elsewhere(config, steps, tmp_path, pytestconfig.rootpath)
    check_communication((tmp_path / "hlo.txt").read_text())
    init = make_init(trainer.config, make_mesh(trainer.config))
    for agent, alone in enumerate(config.agents):
        state = init(alone.seed)
        for number in range(steps):
            state, output = trainer.step(state)
            mine = jax.device_get((state.params, output))
            leaves = [leaf[agent] for leaf in load(tmp_path / f"{number}.npz")]
            params, other = jax.tree.unflatten(jax.tree.structure(mine), leaves)
            jax.tree.map(np.testing.assert_array_equal, other.found, output.found)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                (params, other.metrics),
                (mine[0], mine[1].metrics),
            )


def make_shapes(config: Config):
    return jax.eval_shape(make_init(config, make_mesh(config)), config.seed)


@pytest.mark.parametrize("history", [0, 2])
def test_no_array_of_the_state_is_empty(tiny, history):
    """Sharded ones crash the compiler of jax 0.11, on any number of devices above one."""
    game = dataclasses.replace(tiny.game, history=history)
    state = make_shapes(dataclasses.replace(tiny, game=game))
    assert all(x.size for x in jax.tree.leaves(state))


# The optimizer -----------------------------------------------------------------------------------


def rates(config: Config, updates: int) -> list[float]:
    """Sizes of the first updates under a constant gradient; Adam makes them the learning rate."""
    optimizer = make_optimizer(config)
    params, gradient = jnp.zeros(()), jnp.ones(())
    state, sizes = optimizer.init(params), []
    for _ in range(updates):
        update, state = optimizer.update(gradient, state, params)
        sizes.append(abs(float(update)))
    return sizes


@pytest.mark.parametrize(("warmup", "shares"), [(4, [0, 0.25, 0.5, 0.75, 1, 1]), (0, [1, 1, 1])])
def test_the_learning_rate_rises_to_its_value(tiny, warmup, shares):
    learner = dataclasses.replace(tiny.learner, warmup_updates=warmup, learning_rate=0.1)
    found = rates(dataclasses.replace(tiny, learner=learner), len(shares))
    np.testing.assert_allclose(found, 0.1 * np.array(shares), rtol=1e-4, atol=1e-7)


def test_the_learning_rate_falls_to_a_tenth_in_steps(tiny):
    learner = dataclasses.replace(
        tiny.learner, warmup_updates=2, decay_updates=3, learning_rate=0.1
    )
    found = rates(dataclasses.replace(tiny, learner=learner), 7)
    shares = [0, 0.5, 1, 0.1, 0.1, 0.1, 0.01]
    np.testing.assert_allclose(found, 0.1 * np.array(shares), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_gradients_accumulate_over_parts_of_a_batch(parts):
    def objective(params: dict, batch: tuple) -> tuple[jax.Array, Losses]:
        x, empty = batch
        losses = Losses(jnp.square(params["slope"] * x), x + empty.sum(), x)
        return losses.policy.mean(), losses

    x = jnp.arange(8.0)
    gradient = jax.jit(
        lambda params, batch: accumulate(jax.grad(objective, has_aux=True), params, batch, parts)
    )
    # Without a history, positions hold arrays without entries.
    found, losses = gradient({"slope": jnp.array(3.0)}, (x, jnp.zeros((8, 0))))
    np.testing.assert_allclose(found["slope"], 2 * 3.0 * np.square(np.arange(8)).mean())
    np.testing.assert_array_equal(losses.policy, 9 * x**2)
    np.testing.assert_array_equal(losses.value, x)


@pytest.mark.slow
def test_without_demonstrations_nothing_is_learned_from_empty_rings(tiny):
    learner = dataclasses.replace(tiny.learner, demonstration_batch=0, weight_decay=1e-9)
    config = dataclasses.replace(tiny, learner=learner)
    mesh = make_mesh(config)
    state, step = make_init(config, mesh)(config.seed), make_step(config, mesh)
    before = jax.device_get(state.params)
    state, output = step(state)
    assert output.metrics["games"] == 0, "the first step plays nothing"
    assert output.metrics["gradient_norm"] == 0
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, jax.device_get(state.params), before)
    for _ in range(6):
        state, output = step(state)
    assert output.metrics["gradient_norm"] > 0
    assert output.metrics["demonstration_policy_loss"] == 0


# Learning ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_default_configuration_finds_strassens_rank():
    config = dataclasses.replace(Config(), devices=1)
    mesh = make_mesh(config)
    state, step = make_init(config, mesh)(config.seed), make_step(config, mesh)
    for _ in range(400):
        state, output = step(state)
        found = jax.device_get(output.found)
        if min(check_found(config, found)) <= 7:
            return
    pytest.fail("no algorithm with seven products in 400 steps")

"""The command line, the host's loop, and what they leave in the work folder."""

import contextlib
import errno
import json
import pathlib
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import train
from tensorgame.algorithms import formats
from training import records, storage
from training.checkpoint import CheckpointError, Checkpoints
from training.config import Config, ConfigError, GameConfig
from training.progress import Progress
from training.records import IncorrectRecordError, Records, TargetRecords
from training.selfplay import Found
from training.step import StepOutput
from training.workdir import claimed, default_workdir, fingerprint, read_config
from training.writers import make_writers, read_metrics

# Products as (entries of A, entries of B, entries of C) in the order 11 12 21 22.
STRASSEN = ["1001 1001 1001", "0011 1000 0011", "1000 0101 0101", "0001 1010 1010"]
STRASSEN += ["1100 0001 1100", "1010 1100 0001", "0101 0011 1000"]
SCHOOLBOOK = [
    f"{a} {b} {c}"
    for a, b, c in (
        ("1000", "1000", "1000"),
        ("0100", "0010", "1000"),
        ("1000", "0100", "0100"),
        ("0100", "0001", "0100"),
        ("0010", "1000", "0010"),
        ("0001", "0010", "0010"),
        ("0010", "0100", "0001"),
        ("0001", "0001", "0001"),
    )
]


def actions(products: list[str]) -> np.ndarray:
    """(R, 3, 4); the game has C transposed."""
    rows = np.array([[list(map(int, factor)) for factor in p.split()] for p in products])
    rows[:, 2] = rows[:, 2][:, [0, 2, 1, 3]]
    return rows


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def interruptible():
    """Processes that a shell has put into the background ignore Ctrl-C."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def scripted_step(config: Config, script: dict, loss: dict):
    """A training step that finds ``script[n]`` in step n, with the policy loss ``loss[n]``."""
    length, size = config.max_moves, 64
    moves = np.full((size, 1), length + 1, np.int32)
    found = np.zeros((size, 1, length, 3, config.side), np.int32)
    losses = np.ones(size, np.float32)
    for number, products in script.items():
        moves[number], found[number, 0, : len(products)] = len(products), actions(products)
    for number, value in loss.items():
        losses[number] = value

    def step(state):
        number = state["step"] + 1
        row = jnp.minimum(number, size - 1)
        metrics = {"games": 4.0, "solved": 1.0, "moves": 4.0, "evaluations": 36.0, "return": -9.0}
        metrics |= {"policy_loss": jnp.asarray(losses)[row], "gradient_norm": 1.0}
        solved = jnp.zeros((1, length + 1)).at[0, 8].set(1.0)
        metrics |= {"target_games": jnp.full(1, 4.0), "target_solved": solved}
        output = StepOutput(
            jax.tree.map(jnp.float32, metrics),
            Found(jnp.asarray(moves)[row], jnp.asarray(found)[row]),
        )
        return {**state, "step": number, "key": jax.random.fold_in(state["key"], number)}, output

    return step


def scripted_agents(config: Config, scripts: list[dict]):
    """The scripted steps of several agents as one."""
    steps = [scripted_step(config, script, {}) for script in scripts]

    def step(state):
        outputs = [each(state)[1] for each in steps]
        return steps[0](state)[0], jax.tree.map(lambda *x: jnp.stack(x), *outputs)

    return step


@pytest.fixture
def play(monkeypatch):
    """``play({5: products}, {7: nan})`` replaces the training step by a scripted one.

    A list of scripts is for several agents.
    """

    def make_init(config, _mesh):
        def init(_seed):
            # Without a history, true states have a None too.
            return {
                "step": jnp.int32(0),
                "key": jax.random.key(config.seed),
                "history": None,
            }

        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.jit(init, out_shardings=place)

    def install(script=None, loss=None):
        monkeypatch.setattr(train, "_tell_memory", lambda *_: None)
        monkeypatch.setattr(train, "make_init", make_init)

        def make_step(config, _mesh):
            several = isinstance(script, list)
            step = (
                scripted_agents(config, script)
                if several
                else scripted_step(config, script or {}, loss or {})
            )
            return jax.jit(step, donate_argnums=0)

        monkeypatch.setattr(train, "make_step", make_step)

    return install


@contextlib.contextmanager
def signal_after(step: int, number: int = signal.SIGINT):
    """Sends this process a signal when the host has handled a step."""
    update = Progress.update

    def update_then_stop(self, *arguments):
        update(self, *arguments)
        if self.step == step:
            signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "update", update_then_stop)
        yield


def records_of(config: Config, workdir: pathlib.Path) -> TargetRecords:
    """Of a run with one target."""
    (records,) = Records(config, workdir).each
    return records


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Bad input ---------------------------------------------------------------------------------------


@pytest.fixture
def nothing_compiles(monkeypatch):
    def fail(*_):
        raise AssertionError("bad input has to be refused before anything is compiled")

    monkeypatch.setattr(train, "make_mesh", fail)


def refused(capsys, *argv: object) -> str:
    """The one sentence with which a command line is refused."""
    assert train.main([str(argument) for argument in argv]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("--game.targets matmul:2,2", "game.targets: 'matmul:2,2'"),
        ("--game.targets strassen", "game.targets: 'strassen'"),
        ("--game.targets matmul:2,2,2 matmul:2,0,2", "game.targets: 'matmul:2,0,2'"),
        ("--game.targets tensor:absent.npy", "absent.npy"),
        ("--game.ring q", "game.ring: 'q' is no ring"),
        ("--game.ring z9", "game.ring: the modulus is 9, which is not a prime"),
        ("--game.ring z --game.coefficients 0 1", "game.coefficients: coefficients are 0 1"),
        ("--search.num-actions 9999", "search.num_actions is 9999, more than the 3375 actions"),
        ("--network.token-size 3", "network.token_size is 3, which does not divide the side 4"),
        ("--selfplay.num-games 0", "selfplay.num_games is 0; it must be positive"),
        ("--selfplay.num-games 126", "selfplay.num_games is 126, which 4 devices do not divide"),
        ("--devices 5", "devices is 5, but there are only 4"),
        ("--learner.learning-rate nan", "learner.learning_rate is nan"),
        ("--target-ranks 11", "target_ranks are (11,), which games of"),
        ("--target-ranks 7 7", "target_ranks has 2 values for 1 targets"),
        ("--profile -1", "--profile is -1; it must be a number of steps, 0 for none"),
        ("--profile 1 --workdir gs://bucket/run", "traces are written to local folders"),
        ("--num-seeds 0", "num_seeds is 0; it must be positive"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(argv, says, capsys, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert says in refused(capsys, *argv.split())
    assert not pathlib.Path("runs").exists()


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("--search.num-simulatons 8", "--search.num-simulations"),
        ("--seed one", "--seed"),
        ("--config", "--config"),
    ],
)
def test_unknown_flags_are_refused(argv, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(argv.split())
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "has to define config = Config(...)"),
        ("config = {}", "has to define config = Config(...)"),
        ("\nconfig = Config(", "line 2 raises SyntaxError"),
        ("\n\nconfig = 1 / 0", "line 3 raises ZeroDivisionError: division by zero"),
        ("from training.config import *\nconfig = Config(sed=1)", "unexpected keyword argument"),
        (
            "from training.config import *\nconfig = Config(game=GameConfig(ring='q'))",
            "game.ring: 'q' is no ring; write z, z2",
        ),
        ("from training.config import *\nconfig = Config(seed=1.5)", "seed is 1.5; it must be of"),
        ("from training.config import *\nconfig = Config(lift=1)", "lift is 1; it must be of"),
        ("from training.config import *\nconfig = Config(game=1)", "game is 1; it must be of"),
    ],
)
def test_bad_config_files_are_refused_in_one_sentence(text, says, capsys):
    path = pathlib.Path("given.py")
    path.write_text(text)
    message = refused(capsys, "--config", path)
    assert says in message
    path.unlink()
    assert "is no file" in refused(capsys, "--config", path)


@pytest.mark.usefixtures("nothing_compiles")
def test_folders_of_others_are_refused(capsys):
    workdir = pathlib.Path("work")
    with claimed(workdir, Config(seed=1, max_minutes=5)):
        pass
    message = refused(capsys, "--workdir", workdir, "--game.ring", "z")
    assert "game.ring: there z2, here z; seed: there 1, here 0" in message
    assert "max_minutes" not in message
    (workdir / "config.json").write_text("{")
    assert "damaged" in refused(capsys, "--workdir", workdir)
    (workdir / "config.json").rename(workdir / "other.json")
    assert "holds files but no config.json" in refused(capsys, "--workdir", workdir)
    assert {path.name for path in workdir.iterdir()} == {"other.json", ".lock"}
    for path in (workdir / "other.json", workdir / "other.json" / "below"):
        assert "cannot be used" in refused(capsys, "--workdir", path)


@pytest.mark.usefixtures("nothing_compiles")
def test_damaged_algorithms_are_refused(capsys):
    workdir = default_workdir(Config())
    with claimed(workdir, Config()):
        pass
    records_of(Config(), workdir).offer(
        actions(SCHOOLBOOK), step=1, seconds=1.0, compile_seconds=0.0
    )
    path = workdir / "algorithms" / "rank8-z.npz"
    path.write_bytes(path.read_bytes()[:99])
    assert str(path) in refused(capsys)


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit, match="0"):
        train.main(["--help"])
    text = capsys.readouterr().out
    for words in ("--config FILE", "--workdir DIR", "--search.num-simulations INT", "Exit status"):
        assert words in text


def test_what_does_not_fit_into_memory_is_refused(capsys, monkeypatch):
    def fail(*_):
        raise AssertionError("nothing is to be compiled")

    monkeypatch.setattr(train, "make_step", fail)
    monkeypatch.setattr(train, "memory_limit", lambda _devices: 2**20)
    assert train.main(["--devices", "1"]) == 2
    printed = capsys.readouterr()
    assert "of 1.0 MiB, besides activations (network " in printed.out
    assert printed.err.startswith("error: selfplay.num_games is 128, for which a device needs ")
    assert printed.err.count("\n") == 1


# The work folder ---------------------------------------------------------------------------------


def test_the_folder_is_named_after_what_decides_results():
    same = Config(devices=1, max_minutes=1, target_ranks=(8,), lift=False)
    assert fingerprint(same) == fingerprint(Config())
    assert fingerprint(Config(seed=1)) != fingerprint(Config())
    name = f"matmul-2-2-2-z2-seed0-{fingerprint(Config())}"
    assert default_workdir(Config()) == pathlib.Path("runs", name)


def test_config_json_gives_the_configuration_back(tmp_path):
    config = Config(game=GameConfig(ring="z", coefficients=(-2, -1, 0, 1, 2)), seed=3)
    with claimed(tmp_path, config):
        pass
    assert read_config(tmp_path) == config


def test_two_processes_do_not_share_a_folder(tmp_path, capsys):
    with claimed(tmp_path, Config()):
        assert "where another process is at work" in refused(capsys, "--workdir", tmp_path)
    with claimed(tmp_path, Config()):
        pass


def test_what_a_killed_process_leaves_is_cleared_away(tmp_path):
    (tmp_path / ".lock").touch()
    torn = tmp_path / f".config.json.{'0a' * 16}.tmp"
    torn.write_text("{")
    with claimed(tmp_path, Config()):
        assert not torn.exists()
    assert read_config(tmp_path) == Config()


# Records -----------------------------------------------------------------------------------------


def test_records_keep_the_best_and_never_overwrite(tmp_path):
    kept = records_of(Config(), tmp_path)
    assert kept.best is None
    assert kept.offer(actions(SCHOOLBOOK), step=3).rank == 8
    assert kept.offer(actions(SCHOOLBOOK)[::-1], step=4) is None
    assert not kept.reached
    assert kept.offer(actions(STRASSEN), step=5).rank == 7
    assert kept.reached
    assert kept.offer(actions(SCHOOLBOOK), step=6) is None
    names = {path.name for path in (tmp_path / "algorithms").iterdir()}
    assert names == {
        f"rank{r}-{z}.{e}" for r in (7, 8) for z in ("z", "z2") for e in ("npz", "txt")
    }
    best = formats.load(tmp_path / "best.npz")
    assert (best.rank, best.modulus) == (7, 0)
    assert best.check() in (tmp_path / "best.txt").read_text()
    log = lines(tmp_path / "records.jsonl")
    assert [(line["rank"], line["ring"], line["step"]) for line in log] == [
        (8, "Z_2", 3),
        (8, "Z", 3),
        (7, "Z_2", 5),
        (7, "Z", 5),
    ]
    again = records_of(Config(), tmp_path)
    assert again.best.key() == best.key()
    assert again.provenance == log[-1]


def test_what_counts_depends_on_lift(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(records, "lift", tried.append)
    kept = records_of(Config(), tmp_path)
    for order in (1, -1, 1):
        assert kept.offer(actions(STRASSEN)[::order], step=1) is None
    assert len(tried) == 1, "the same products in another order are not lifted again"
    assert not kept.reached
    assert not (tmp_path / "best.npz").exists()
    modulo_two = records_of(Config(lift=False), tmp_path)
    assert modulo_two.reached
    assert formats.load(tmp_path / "best.npz").modulus == 2
    assert not Records(Config(), tmp_path).reached


def test_others_of_the_best_rank_are_kept_and_counted(tmp_path):
    kept = records_of(Config(), tmp_path)
    # A symmetry of the tensor: (A, B, C) to (P A, B, P C), with P adding row 2 to row 1.
    add = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    other = actions(STRASSEN)
    other[:, 0] = other[:, 0] @ add % 2
    other[:, 2] = (other[:, 2].reshape(-1, 2, 2) @ np.array([[1, 0], [1, 1]]) % 2).reshape(-1, 4)
    assert kept.distinct == 0
    assert kept.offer(actions(STRASSEN), step=5).rank == 7
    for again in (actions(STRASSEN)[::-1], other, other[::-1]):
        assert kept.offer(again, step=6) is None
    assert kept.distinct == 2
    assert records_of(Config(), tmp_path).distinct == 2
    (path,) = (tmp_path / "algorithms" / "rank7-z2").iterdir()
    formats.load(path).check()
    assert kept.offer(actions(SCHOOLBOOK), step=7) is None
    assert len(lines(tmp_path / "records.jsonl")) == 2


def test_a_record_says_where_it_comes_from(tmp_path):
    records_of(Config(seed=4), tmp_path).offer(actions(STRASSEN), step=5, seconds=2.5)
    for line in lines(tmp_path / "records.jsonl"):
        assert line["config"] == fingerprint(Config(seed=4))
        assert (line["seed"], line["step"], line["seconds"]) == (4, 5, 2.5)
        assert line["commit"]
        assert "cpu" in line["device"]
        assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("last", range(10))
def test_no_record_is_lost_between_two_writes(last, tmp_path, monkeypatch):
    """The process ends before its write number ``last``."""
    written = []

    def write_or_die(path, content):
        if len(written) == last:
            raise KeyboardInterrupt
        written.append(path)
        storage.write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", write_or_die)
        with contextlib.suppress(KeyboardInterrupt):
            records_of(Config(), tmp_path).offer(actions(STRASSEN), step=5)
    again = records_of(Config(), tmp_path)
    first = tmp_path / "algorithms" / "rank7-z2.npz"
    assert (again.best is not None) == (first in written), "what is on disk is lifted at once"
    again.offer(actions(STRASSEN), step=6)
    assert again.best.rank == 7
    found = lines(tmp_path / "records.jsonl")
    assert sorted(line["file"] for line in found) == ["rank7-z.npz", "rank7-z2.npz"]
    for path in (tmp_path / "best.npz", first, first.with_name("rank7-z.npz")):
        formats.load(path).check()


def test_a_record_that_cannot_be_written_is_printed(tmp_path, monkeypatch, capsys):
    def full(_path, _content):
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = records_of(Config(), tmp_path)
    monkeypatch.setattr(records, "write", full)
    with pytest.raises(OSError, match="No space"):
        kept.offer(actions(STRASSEN), step=5)
    printed = capsys.readouterr().err.partition("saved:\n")[2]
    (found,) = formats.decode(printed.encode(), "printed").values()
    found.check()


@pytest.fixture
def bucket(tmp_path):
    """gs:// without a network: whole objects alone, as nothing can be renamed or appended to."""

    def there(path):
        return str(path).replace("gs://", f"{tmp_path}/")

    def refuse(*_):
        raise NotImplementedError("not in a bucket")

    def open_whole(original, path, mode):
        assert "a" not in mode
        return original(there(path), mode)

    def at(original, path, *rest, **options):
        return original(there(path), *rest, **options)

    same = dict.fromkeys(("exists", "isdir", "listdir", "makedirs", "mkdir", "remove"), at)
    with epath.testing.mock_epath(open=open_whole, rename=refuse, replace=refuse, **same):
        yield storage.parse("gs://bucket/run")


def test_records_in_a_bucket(bucket, tmp_path):
    assert storage.is_bucket(bucket)
    for _ in range(2):
        with claimed(bucket, Config()):
            kept = records_of(Config(), bucket)
            kept.offer(actions(STRASSEN), step=5)
    assert read_config(bucket) == Config()
    assert kept.provenance["step"] == 5
    assert formats.load(tmp_path / "bucket" / "run" / "best.npz").rank == 7
    with pytest.raises(ConfigError, match="gs://bucket/run, which belongs to another run"):
        claimed(bucket, Config(seed=1)).__enter__()


def test_metrics_in_a_bucket(bucket):
    with claimed(bucket, Config()):
        for begin, steps in ((0, (1, 2, 3, 4)), (3, (4, 5))):
            (writer,) = make_writers(Config(), bucket)
            writer.begin(begin)
            for step in steps:
                writer.write({"step": step, "begin": begin})
                if step % 2 == 0:
                    writer.flush()
            writer.close()
    expected = [(1, 0), (2, 0), (3, 0), (4, 3), (5, 3)]
    assert [(line["step"], line["begin"]) for line in read_metrics(bucket)] == expected


def test_a_false_solution_is_loud(tmp_path):
    with pytest.raises(IncorrectRecordError, match="no algorithm"):
        records_of(Config(), tmp_path).offer(actions(STRASSEN[:6]), step=1)
    assert not list((tmp_path / "algorithms").iterdir())
    (path,) = (tmp_path / "incorrect").iterdir()
    assert formats.load(path).rank == 6


def test_a_false_solution_ends_the_run(play, capsys):
    play({3: SCHOOLBOOK[:7]})
    assert train.main(["--workdir", "work"]) == 3
    message = capsys.readouterr().err
    assert "of the 64 entries are wrong" in message
    assert "work/incorrect/step3-" in message


# Runs with a scripted step -----------------------------------------------------------------------


def test_a_run_ends_with_the_rank_and_knows_it_afterwards(play, capsys, monkeypatch):
    play({3: SCHOOLBOOK, 6: STRASSEN})
    assert train.main([]) == 0
    out = capsys.readouterr().out
    workdir = default_workdir(Config())
    proof = "checked: 7 products reproduce all 64 entries over Z"
    for words in (
        "compiled in",
        "8 products over Z (schoolbook: 8) after",
        "m7 = ",
        proof,
        "found at step 6",
        "best.npz",
    ):
        assert words in out
    assert (workdir / "learning_curve.png").stat().st_size > 10_000
    metrics = read_metrics(workdir)
    assert [line["step"] for line in metrics] == list(range(1, len(metrics) + 1))
    assert [line["best_ranks"]["matmul:2,2,2"] for line in metrics[:6]] == [None, None, 8, 8, 8, 7]
    assert metrics[-1]["total_games"] == 4 * len(metrics)

    monkeypatch.setattr(train, "make_mesh", None)
    assert train.main([]) == 0
    out = capsys.readouterr().out
    assert "found earlier" in out
    assert proof in out
    assert str(workdir) in out


def test_the_budget_ends_a_run_and_a_bound_is_warned_of(play, capsys):
    play({3: STRASSEN})
    assert train.main(["--target-ranks", "6", "--max-minutes", "0.05"]) == 1
    captured = capsys.readouterr()
    assert "below the proved lower bound 7" in captured.err
    assert "0.05 minutes are used up; matmul:2,2,2, wanted with rank 6:" in captured.out
    assert "the best so far has 7 products" in captured.out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_where_it_was(number, status, play, capsys):
    play({2: SCHOOLBOOK, 30: STRASSEN})
    workdir, usual = pathlib.Path("work"), signal.getsignal(number)
    with signal_after(7, number):
        assert train.main(["--workdir", "work"]) == status
    assert signal.getsignal(number) == usual
    assert formats.load(workdir / "best.npz").rank == 8
    # One more step was on its way.
    assert [line["step"] for line in read_metrics(workdir)] == list(range(1, 9))

    # A run that is killed leaves lines of steps after its last checkpoint, the last one torn.
    path = workdir / "metrics.jsonl"
    last = path.read_text().splitlines()[-1].replace('"step": 8', '"step": 9')
    path.write_text(path.read_text() + last + "\n" + last[:40])
    capsys.readouterr()
    assert train.main(["--workdir", "work"]) == 0
    assert "at step 8 in work" in capsys.readouterr().out
    metrics = read_metrics(workdir)
    assert [line["step"] for line in metrics] == list(range(1, len(metrics) + 1))
    assert metrics[-1]["total_games"] == 4 * len(metrics)
    assert metrics[29]["best_ranks"] == {"matmul:2,2,2": 7}
    seconds = [line["seconds"] for line in metrics]
    assert seconds == sorted(seconds)


def test_agents_are_reported_each_and_all_have_to_succeed(play, capsys):
    play([{3: SCHOOLBOOK, 9: STRASSEN}, {5: SCHOOLBOOK, 30: STRASSEN}, {2: STRASSEN}])
    argv = ["--seed", "4", "--num-seeds", "3", "--workdir", "work"]
    with signal_after(12):
        assert train.main(argv) == 130
    out = capsys.readouterr().out
    assert "seed 4: matmul:2,2,2 with 7 products" in out
    assert "2 of 3 agents have found what is wanted" in out
    assert re.search(r"^ +5  matmul:2,2,2 +8 +7 +5 .*seed-5/best.txt$", out, re.MULTILINE)

    assert train.main(argv) == 0
    out = capsys.readouterr().out
    assert "at step 13 in work" in out
    for seed, step in ((4, 9), (5, 30), (6, 2)):
        folder = pathlib.Path("work", f"seed-{seed}")
        assert formats.load(folder / "best.npz").rank == 7
        assert re.search(rf"^ +{seed}  matmul:2,2,2 +7 +7 +{step} ", out, re.MULTILINE)
        found = lines(folder / "records.jsonl")
        assert {line["seed"] for line in found} == {seed}
        told = read_metrics(folder)
        assert [line["step"] for line in told] == list(range(1, len(told) + 1))
        assert {line["seed"] for line in told} == {seed}
        assert (folder / "learning_curve.png").exists()
    assert train.main(argv) == 0
    assert "found earlier" in capsys.readouterr().out


def test_a_notice_of_preemption_saves_first(play, monkeypatch):
    play()
    monkeypatch.setattr(Checkpoints, "preempted", lambda _self, step: step == 5)
    assert train.main(["--workdir", "work"]) == 143
    assert Checkpoints(pathlib.Path("work")).latest == 5


def test_a_checkpoint_that_fails_is_tried_again(play, monkeypatch, capsys):
    play()
    save, failed = Checkpoints.save, []

    def full_at_first(self, step, state, counters):
        if not failed:
            failed.append(step)
            raise CheckpointError("no room")
        save(self, step, state, counters)

    monkeypatch.setattr(Checkpoints, "save", full_at_first)
    with signal_after(5):
        assert train.main(["--workdir", "work", "--checkpoint-minutes", "1e-9"]) == 130
    assert "warning: no room; trying again" in capsys.readouterr().err
    assert Checkpoints(pathlib.Path("work")).latest >= 5


def test_a_last_checkpoint_that_fails_is_an_error(play, monkeypatch, capsys):
    def full(*_):
        raise CheckpointError("no room")

    play()
    monkeypatch.setattr(Checkpoints, "save", full)
    with signal_after(5):
        assert train.main(["--workdir", "work"]) == 2
    assert "error: no room; once that is mended" in capsys.readouterr().err


def test_a_second_signal_stops_at_once(play):
    play()
    with signal_after(3), signal_after(4):
        assert train.main(["--workdir", "work"]) == 130
    # The second came while the first one's last step was handled, so there is no checkpoint.
    assert Checkpoints(pathlib.Path("work")).latest is None


def test_a_loss_that_is_not_finite_ends_the_run(play, capsys):
    play({2: SCHOOLBOOK}, {5: np.nan})
    assert train.main([]) == 1
    captured = capsys.readouterr()
    assert "policy_loss became nan at step 5, see" in captured.err
    workdir = default_workdir(Config())
    assert formats.load(workdir / "best.npz").rank == 8
    assert read_metrics(workdir)[-1]["policy_loss"] is None
    diagnosis = json.loads((workdir / "divergence-5.json").read_text())
    assert diagnosis["last_metrics"] == read_metrics(workdir)
    assert diagnosis["not_finite"] == {}, "the script knows no parameters"


# Orbax leaves coroutines behind when it fails.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_damaged_checkpoint_is_skipped(play, capsys):
    play({2: SCHOOLBOOK})
    with signal_after(5):
        assert train.main(["--workdir", "work", "--checkpoint-minutes", "1e-9"]) == 130
    folder = pathlib.Path("work", "checkpoints")
    steps = sorted(int(path.name) for path in folder.iterdir())
    assert len(steps) == 2

    def damage(step):
        for path in (folder / str(step) / "state").rglob("d/*"):
            path.write_bytes(path.read_bytes()[:10])

    damage(steps[1])
    capsys.readouterr()
    with signal_after(steps[1] + 1):
        assert train.main(["--workdir", "work"]) == 130
    captured = capsys.readouterr()
    assert f"warning: skipped the damaged checkpoint {steps[1]}" in captured.err
    assert f"at step {steps[0]} in work" in captured.out

    for path in folder.iterdir():
        damage(path.name)
    assert "no checkpoint in" in refused(capsys, "--workdir", "work")
    assert formats.load("work/best.npz").rank == 8


# The true step -----------------------------------------------------------------------------------


def test_the_true_step_finds_small_algorithms_for_several_targets(capsys):
    argv = "--game.targets matmul:1,1,2 complex --game.ring z --target-ranks 2 4 --max-minutes 10"
    argv += " --game.max-moves 5 --selfplay.num-games 8 --workdir work"
    argv += " --search.num-actions 4 --search.num-simulations 4 --network.layers 1"
    argv += " --learner.demonstration-steps 20"
    argv += " --learner.replay-batch 8 --learner.demonstration-batch 8"
    assert train.main(argv.split()) == 0
    out = capsys.readouterr().out
    for target, rank in (("matmul:1,1,2", 2), ("complex", 4)):
        found = formats.load(
            pathlib.Path("work", target.replace(":", "-").replace(",", "-"), "best.npz")
        )
        assert found.target.name == target
        assert found.rank <= rank
        assert found.check() in out
    assert (pathlib.Path("work") / "learning_curve.png").exists()

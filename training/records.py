"""What a run has found: algorithms on disk, each proved before it is written.

The folder ``algorithms`` keeps the first algorithm of every rank and ring, as rank7-z.npz and .txt,
and the others of the best rank over the ring played in a folder beside it, as
``rank7-z2/<key>.npz``; nothing in it is ever overwritten. ``best.npz`` and ``best.txt`` are the
best one that counts, and ``records.jsonl`` says where each first one comes from.

A process may be killed between any two writes. What a later run looks for, the .npz, comes last,
and what follows from it is made anew when the folder is opened.
"""

import json
import sys
from collections import defaultdict

import numpy as np

from tensorgame.algorithms import formats
from tensorgame.algorithms.factorization import Factorization, IncorrectFactorization
from tensorgame.algorithms.lifting import lift
from tensorgame.targets import Target
from training.config import Config, ConfigError
from training.provenance import origin
from training.storage import Path, read_lines, write
from training.workdir import fingerprint, slug

# Different algorithms of one rank that are tried; for <4,4,4> modulo 2 a lift takes seconds.
_LIFTS_PER_RANK = 100
# Different algorithms of one rank and ring that are kept and counted: a file each.
_KEPT_PER_RANK = 10_000


class IncorrectRecordError(RuntimeError):
    """A solved game whose moves are no algorithm, which only a mistake in the program can cause."""


class Records:
    """The best algorithms of a run, one for each of its targets.

    With several targets each has a folder of its own in the work folder.

    Attributes:
        workdir: the work folder.
        each: the records of each target, in the order of the configuration.
    """

    def __init__(self, config: Config, workdir: Path):
        """Loads what the folder holds.

        Raises:
            ConfigError: a file of the folder is damaged or not a correct algorithm.
        """
        self.workdir = workdir
        several = len(config.targets) > 1
        self.each = [
            TargetRecords(config, target, wanted, workdir / slug(name) if several else workdir)
            for name, target, wanted in zip(
                config.game.targets, config.targets, config.ranks_wanted, strict=True
            )
        ]

    @property
    def reached(self) -> bool:
        """Whether all ranks wanted are there."""
        return all(records.reached for records in self.each)

    @property
    def best_ranks(self) -> dict[str, int | None]:
        """The best rank so far of each target, by name."""
        return {r.target.name: r.best.rank if r.best else None for r in self.each}


class TargetRecords:
    """The best algorithm for one target.

    Modulo a prime with ``config.lift`` an algorithm counts once it is lifted.

    Attributes:
        target: the target.
        wanted: the rank that the run is after.
        folder: where its files are.
        best: the best algorithm that counts, or None.
        provenance: the line of records.jsonl about it.
    """

    best: Factorization | None
    provenance: dict

    def __init__(self, config: Config, target: Target, wanted: int, folder: Path):
        self.target = target
        self.wanted = wanted
        self.folder = folder
        self.best = None
        self.provenance = {}
        self._config = config
        self._algorithms = folder / "algorithms"
        self._algorithms.mkdir(parents=True, exist_ok=True)
        self._log = folder / "records.jsonl"
        self._tried: dict[int, set[str]] = defaultdict(set)
        saved = [self._load(path) for path in _archives(self._algorithms)]
        # Keys of all algorithms that are kept, by the file of the first of their rank and ring.
        self._keys = {self._path(found): self._keys_of(found) for found in saved}
        self._resume(saved)

    @property
    def reached(self) -> bool:
        """Whether the rank wanted is there."""
        return self.best is not None and self.best.rank <= self.wanted

    @property
    def distinct(self) -> int:
        """How many different algorithms of the best rank were seen over the ring played.

        Those that differ in the order of the products or in how a product's constants are spread
        over its factors count once. At most 10,000 are kept and counted.
        """
        if self.best is None:
            return 0
        return len(self._keys.get(self._first(self.best.rank, self._config.ring.name), ()))

    def offer(self, actions: np.ndarray, **provenance: float) -> Factorization | None:
        """Takes the factors (R, 3, S) of a solved game, in the canonical basis.

        They are kept if they are as few as those of the best, and new.

        Args:
            actions: over the ring played.
            **provenance: numbers for records.jsonl.

        Returns:
            The algorithm, on disk by then, if it is the new best that counts.

        Raises:
            IncorrectRecordError: the game was not solved; its factors are saved.
            OSError: the algorithm cannot be written; it is printed.
        """
        if self.best is not None and len(actions) > self.best.rank:
            return None
        u, v, w = (actions[:, i, :size].T for i, size in enumerate(self.target.shape))
        modulus = self._config.ring.modulus
        found = Factorization(target=self.target, modulus=modulus, u=u, v=v, w=w).canonical()
        self._keep(found, provenance)
        if self.best is not None and found.rank == self.best.rank:
            return None
        return self._count(found, provenance)

    def _count(self, found: Factorization, provenance: dict) -> Factorization | None:
        """Makes an algorithm that is kept the best, if it counts or can be lifted to one."""
        if found.modulus != self._modulus:
            found = self._lift(found)
            if found is None:
                return None
            self._keep(found, provenance)
        self._crown(found)
        return found

    def _resume(self, saved: list[Factorization]) -> None:
        """Finds the best of those saved."""
        mine = [f for f in saved if f.modulus in (self._modulus, self._config.ring.modulus)]
        for found in sorted(mine, key=lambda f: (f.rank, f.modulus != self._modulus)):
            if self.best is not None and found.rank >= self.best.rank:
                return
            # The process may have been killed before it had lifted this one.
            self._count(found, self._lines().get(self._path(found).name, {}))

    @property
    def _modulus(self) -> int:
        """Of the algorithms that count."""
        return 0 if self._config.lift else self._config.ring.modulus

    def _path(self, found: Factorization) -> Path:
        return self._first(found.rank, found.ring)

    def _first(self, rank: int, ring: str) -> Path:
        """The file of the first algorithm of a rank and ring."""
        return self._algorithms / f"rank{rank}-{ring.replace('_', '').lower()}.npz"

    def _lift(self, found: Factorization) -> Factorization | None:
        """The algorithm in characteristic 0, if it is the first to be tried and there is one."""
        tried, key = self._tried[found.rank], _key(found)
        if key in tried or len(tried) == _LIFTS_PER_RANK:
            return None
        tried.add(key)
        lifted = lift(found)
        return lifted and lifted.canonical()

    def _keep(self, found: Factorization, provenance: dict) -> None:
        """Proves and writes an algorithm, unless it is there."""
        path, key = self._path(found), _key(found)
        keys = self._keys.setdefault(path, set())
        if key in keys or len(keys) >= _KEPT_PER_RANK:
            return
        self._prove(found, provenance)
        try:
            if keys:
                others = path.with_suffix("")
                others.mkdir(exist_ok=True)
                _save(found, others / f"{key}.npz")
            else:
                self._write_first(found, path, provenance)
        except OSError:
            # It may not come again.
            lost = formats.encode(found, "lost.json").decode()
            print(f"error: {found.summary()} could not be saved:\n{lost}", file=sys.stderr)
            raise
        keys.add(key)

    def _prove(self, found: Factorization, provenance: dict) -> None:
        try:
            found.check()
        except IncorrectFactorization as error:
            folder = self.folder / "incorrect"
            path = folder / f"step{provenance.get('step', 0)}-{_key(found)}.npz"
            folder.mkdir(exist_ok=True)
            _save(found, path)
            raise IncorrectRecordError(
                f"a solved game of {self.target.name} is no algorithm ({error}), so that the "
                f"program is wrong; its factors are in {path}: please report them with config.json"
            ) from error

    def _write_first(self, found: Factorization, path: Path, provenance: dict) -> None:
        """Writes the first algorithm of its rank and ring."""
        line = {
            "file": path.name,
            "rank": found.rank,
            "ring": found.ring,
            "target": self.target.name,
            "seed": self._config.seed,
            "config": fingerprint(self._config),
        }
        # What is lifted only when the folder is opened again comes from where its residues did.
        line = {**line, **origin(), **provenance, **line}
        _save(found, path.with_suffix(".txt"))
        lines = {**self._lines(), path.name: line}
        text = "".join(json.dumps(line) + "\n" for line in lines.values())
        write(self._log, text.encode())
        # Last, as it is what a later run looks for.
        _save(found, path)

    def _lines(self) -> dict[str, dict]:
        """The lines of records.jsonl by the file that they are about."""
        return {line["file"]: line for line in map(json.loads, read_lines(self._log))}

    def _keys_of(self, first: Factorization) -> set[str]:
        others = _archives(self._path(first).with_suffix(""))
        return {_key(first), *(path.stem for path in others)}

    def _load(self, path: Path) -> Factorization:
        try:
            (found,) = formats.decode(path.read_bytes(), str(path)).values()
            found.check()
        except ValueError as error:
            raise ConfigError(f"{error}; move {path} away to go on without it") from None
        if found.target != self.target:
            raise ConfigError(f"{path} is for {found.target.name}; move it away")
        return found

    def _crown(self, found: Factorization) -> None:
        """Makes a saved algorithm the best."""
        self.best = found
        self.provenance = self._lines().get(self._path(found).name, {})
        for ending in (".npz", ".txt"):
            _save(found, self.folder / f"best{ending}")


def _archives(folder: Path) -> list[Path]:
    """The .npz files of a folder, none if it does not exist."""
    return [p for p in folder.iterdir() if p.suffix == ".npz"] if folder.exists() else []


def _save(found: Factorization, path: Path) -> None:
    write(path, formats.encode(found, path))


def _key(found: Factorization) -> str:
    """Names an algorithm up to the order of its products and their constants: 16 hex digits."""
    return found.key().hex()[:16]

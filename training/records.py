"""What a run has found: algorithms on disk, each proved before it is written.

The folder ``algorithms`` keeps the first algorithm of every rank and ring, as rank7-z.npz and .txt;
nothing in it is ever overwritten. ``best.npz`` and ``best.txt`` are the best one that counts, and
``records.jsonl`` says when each was found.
"""

import json
import pathlib
from collections import defaultdict

import numpy as np

from tensorgame.algorithms import formats
from tensorgame.algorithms.factorization import Factorization
from tensorgame.algorithms.lifting import lift
from tensorgame.targets import Target
from training.config import Config, ConfigError
from training.workdir import fingerprint, slug

# Different algorithms of one rank that are tried; for <4,4,4> modulo 2 a lift takes seconds.
_LIFTS_PER_RANK = 100


class Records:
    """The best algorithms of a run, one for each of its targets.

    With several targets each has a folder of its own in the work folder.

    Attributes:
        each: the records of each target, in the order of the configuration.
    """

    def __init__(self, config: Config, workdir: pathlib.Path):
        """Loads what the folder holds.

        Raises:
            ConfigError: a file of the folder is damaged or not a correct algorithm.
        """
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

    def __init__(self, config: Config, target: Target, wanted: int, folder: pathlib.Path):
        self.target = target
        self.wanted = wanted
        self.folder = folder
        self.best: Factorization | None = None
        self.provenance: dict = {}
        self._config = config
        self._algorithms = folder / "algorithms"
        self._algorithms.mkdir(parents=True, exist_ok=True)
        self._log = folder / "records.jsonl"
        self._tried: dict[int, set[bytes]] = defaultdict(set)
        saved = [self._load(path) for path in self._algorithms.glob("*.npz")]
        counting = [found for found in saved if found.modulus == self._modulus]
        if counting:
            self._crown(min(counting, key=lambda found: found.rank))

    @property
    def reached(self) -> bool:
        """Whether the rank wanted is there."""
        return self.best is not None and self.best.rank <= self.wanted

    def offer(self, actions: np.ndarray, **provenance: float) -> Factorization | None:
        """Takes the factors (R, 3, S) of a solved game, in the canonical basis.

        They are looked at only if they are fewer than those of the best.

        Args:
            actions: over the ring played.
            **provenance: numbers for records.jsonl.

        Returns:
            The algorithm, on disk by then, if it is the new best that counts.

        Raises:
            IncorrectFactorization: the game was not solved.
        """
        if self.best is not None and len(actions) >= self.best.rank:
            return None
        u, v, w = (actions[:, i, :size].T for i, size in enumerate(self.target.shape))
        modulus = self._config.ring.modulus
        found = Factorization(target=self.target, modulus=modulus, u=u, v=v, w=w).canonical()
        found.check()
        self._save(found, provenance)
        if found.modulus != self._modulus:
            found = self._lift(found)
            if found is None:
                return None
            self._save(found, provenance)
        self._crown(found)
        return found

    @property
    def _modulus(self) -> int:
        """Of the algorithms that count."""
        return 0 if self._config.lift else self._config.ring.modulus

    def _path(self, found: Factorization) -> pathlib.Path:
        ring = found.ring.replace("_", "").lower()
        return self._algorithms / f"rank{found.rank}-{ring}.npz"

    def _lift(self, found: Factorization) -> Factorization | None:
        """The algorithm in characteristic 0, if it is the first to be tried and there is one."""
        tried, key = self._tried[found.rank], found.key()
        if key in tried or len(tried) == _LIFTS_PER_RANK:
            return None
        tried.add(key)
        lifted = lift(found)
        return lifted and lifted.canonical()

    def _save(self, found: Factorization, provenance: dict[str, float]) -> None:
        """Keeps the first algorithm of its rank and ring."""
        path = self._path(found)
        if path.exists():
            return
        line = {
            "file": path.name,
            "rank": found.rank,
            "ring": found.ring,
            "target": self.target.name,
            "seed": self._config.seed,
            "config": fingerprint(self._config),
            **provenance,
        }
        formats.save(found, path.with_suffix(".txt"))
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")
        # Last, as it is what a later run looks for.
        formats.save(found, path)

    def _load(self, path: pathlib.Path) -> Factorization:
        try:
            found = formats.load(path)
            found.check()
        except ValueError as error:
            raise ConfigError(f"{error}; move {path} away to go on without it") from None
        if found.target != self.target:
            raise ConfigError(f"{path} is for {found.target.name}; move it away")
        return found

    def _crown(self, found: Factorization) -> None:
        """Makes a saved algorithm the best."""
        self.best = found
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        by_file = {line["file"]: line for line in map(json.loads, lines)}
        self.provenance = by_file.get(self._path(found).name, {})
        for ending in ("npz", "txt"):
            formats.save(found, self.folder / f"best.{ending}")

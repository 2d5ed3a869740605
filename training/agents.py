"""The independent agents of a run, and what each of them keeps.

They are trained by one program and share its steps, its checkpoints and the time. Each has the seed
that a run of its own would have, and a folder with its algorithms, records and metrics.
"""

import dataclasses
from collections.abc import Sequence

from training.config import Config
from training.records import Records
from training.storage import Path


@dataclasses.dataclass(frozen=True)
class Agent:
    """One of the agents of a run.

    Attributes:
        config: that of a run of this agent alone.
        records: what it has found, in its folder.
    """

    config: Config
    records: Records

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.records.workdir


def open_agents(config: Config, workdir: Path) -> list[Agent]:
    """The agents of a run, with what the folder holds of each.

    Several have folders seed-0, seed-1, ... in it; a single one has the folder itself.

    Raises:
        ConfigError: a file of a folder is damaged or not a correct algorithm.
    """
    agents = []
    for one in config.agents:
        folder = workdir / f"seed-{one.seed}" if config.num_seeds > 1 else workdir
        agents.append(Agent(one, Records(one, folder)))
    return agents


def have_reached(agents: Sequence[Agent]) -> bool:
    """Whether each has all ranks wanted."""
    return all(agent.records.reached for agent in agents)


def table(agents: Sequence[Agent]) -> str:
    """What each agent has found, and when: lines for people."""
    rows = [("seed", "target", "rank", "wanted", "step", "seconds", "")]
    for agent in agents:
        for each in agent.records.each:
            rank = each.best.rank if each.best else "-"
            at = [each.provenance.get(name, "-") for name in ("step", "seconds")]
            file = each.folder / "best.txt" if each.best else ""
            rows.append((agent.config.seed, each.target.name, rank, each.wanted, *at, file))
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for seed, target, *numbers, file in texts:
        cells = [seed.rjust(widths[0]), target.ljust(widths[1])]
        cells += [cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=False)]
        lines.append("  ".join([*cells, file]).rstrip())
    return "\n".join(lines)

"""Compiles the training step for TPUs that are not here, and says what memory it takes.

    pip install -e '.[tpu]'
    python benchmarks/compile_tpu.py tpu_configs/v5e_8_444.py --topology v5e:2x4

JAX's ahead-of-time compilation needs the TPU compiler (libtpu), but no TPU. One JSON line.
"""

import os
import pathlib
import time

# Elsewhere than on a TPU VM, libtpu asks the cloud what it runs on, and waits for the answer.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from reporting import command_line, commit, cpu_name, report

import train
from training.mesh import AXIS
from training.step import make_init, make_step


def main() -> None:
    """Runs the command line."""
    parser = command_line(__doc__)
    parser.add_argument("config", type=pathlib.Path, help="a file like those in tpu_configs")
    parser.add_argument(
        "--topology", default="v5e:2x4", help="kind and grid of chips: v5e:2x4, v5p:4x4x4"
    )
    arguments = parser.parse_args()
    topology = topologies.get_topology_desc(arguments.topology, platform="tpu")
    devices = np.array(topology.devices)
    mesh = Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,))
    config = train.load_config(arguments.config)
    config.validate_for(len(devices))
    began = time.perf_counter()
    state = jax.eval_shape(make_init(config, mesh), config.seed)
    lowered = make_step(config, mesh).lower(state)
    traced = time.perf_counter()
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    # The step takes its arguments over, so that results need no place of their own.
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    total += memory.output_size_in_bytes - memory.alias_size_in_bytes
    report(
        {
            "config": arguments.config.stem,
            "topology": arguments.topology,
            "devices": len(devices),
            "games_each": config.selfplay.num_games // len(devices),
            "state_megabytes_each": round(memory.argument_size_in_bytes / 1e6),
            "temporary_megabytes_each": round(memory.temp_size_in_bytes / 1e6),
            "megabytes_each": round(total / 1e6),
            "trace_seconds": round(traced - began, 1),
            "compile_seconds": round(time.perf_counter() - traced, 1),
            "compiled_on": cpu_name(),
            "jax": jax.__version__,
            "commit": arguments.commit or commit(),
        },
        arguments.output,
    )


if __name__ == "__main__":
    main()

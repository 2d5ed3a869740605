"""The mesh of devices that a step runs on, and what each of them has of all items."""

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh

from training.config import Config

AXIS = "devices"


def make_mesh(config: Config) -> Mesh:
    """The mesh of the configured devices, those of all processes."""
    devices = jax.devices()[: config.num_devices]
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def make_abstract_mesh(devices: int) -> AbstractMesh:
    """A mesh of so many devices that need not be here, to trace with but not to run on."""
    return AbstractMesh((devices,), (AXIS,), (AxisType.Auto,))


def platform(mesh: Mesh | AbstractMesh) -> str:
    """cpu, gpu or tpu; without devices, that of this process."""
    return mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else jax.default_backend()


# Inside of `jax.shard_map`:


def global_ids(count: int) -> jax.Array:
    """The places of this device's ``count`` items among those of all devices."""
    return jax.lax.axis_index(AXIS) * count + jnp.arange(count)


def item_keys(key: jax.Array, count: int) -> jax.Array:
    """Keys of this device's ``count`` items, the same for any number of devices."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(global_ids(count))


def own_row(x: jax.Array) -> jax.Array:
    """``x`` (N,) in the row of this device of zeros (D, N), float32; their sum is a gather."""
    rows = jnp.zeros((jax.lax.axis_size(AXIS), *x.shape), jnp.float32)
    return rows.at[jax.lax.axis_index(AXIS)].set(x.astype(jnp.float32))

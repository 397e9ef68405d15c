"""Laws of the checkpoints that processes write and read: one that is killed, one on other devices, two at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from zoo.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent


def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


SAVE_TWO = """
import sys, jax.numpy as jnp, numpy as np
from zoo.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in map(int, sys.argv[2:]):
    noise = np.random.default_rng(step).standard_normal((8, 4_000_000), dtype=np.float32)
    checkpoints.save(step, {"params": {str(n): jnp.asarray(row) for n, row in enumerate(noise)}}, None, {})
    if step == int(sys.argv[2]):
        checkpoints.wait()
checkpoints.wait()
"""


def test_a_run_killed_while_saving_leaves_only_whole_checkpoints(tmp_path):
    def noise(step):
        rows = np.random.default_rng(step).standard_normal((8, 4_000_000), dtype=np.float32)
        return {"params": {str(n): row for n, row in enumerate(rows)}}

    run = start(SAVE_TWO, tmp_path, 1, 2)
    while not list((tmp_path / "checkpoints").glob("2.*/*/*/*")):  # 128 MB are being written
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    _, errors = run.communicate()
    assert list((tmp_path / "checkpoints").glob("*tmp*")), "killed too late to show anything"
    assert errors == ""

    checkpoints = Checkpoints(tmp_path)
    step, state, _ = checkpoints.restore(noise(0), None)
    assert step == 1 and checkpoints.steps() == [1]
    assert all(np.array_equal(state["params"][name], row) for name, row in noise(1)["params"].items())
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


ON_A_MESH = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec, AxisType
from zoo.checkpoints import Checkpoints, load_parameters
values = np.arange(64.0, dtype=np.float32).reshape(8, 8)
def sharding(shape):
    mesh = jax.make_mesh(shape, ("data", "tensor"), (AxisType.Auto,) * 2)
    return NamedSharding(mesh, PartitionSpec("data", "tensor"))
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"params": jax.device_put(values, sharding((4, 1)))}, None, {})
checkpoints.wait()
for other in map(sharding, [(2, 2), (1, 4), (1, 1)]):
    like = {"params": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=other)}
    whole = checkpoints.restore(like, None)[1]["params"]
    for params in (whole, load_parameters(sys.argv[1], "latest", like["params"])[1]):
        assert params.sharding == other and (np.asarray(params) == values).all()
"""


def test_a_checkpoint_moves_to_another_mesh(tmp_path):
    run = start(ON_A_MESH, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert errors == ""


ON_TWO_HOSTS = """
import sys, grain, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec, AxisType
from pathlib import Path
from zoo.checkpoints import Checkpoints, load_parameters
host = int(sys.argv[2])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("127.0.0.1:" + sys.argv[3], 2, host)
sharding = NamedSharding(jax.make_mesh((2,), ("data",), (AxisType.Auto,)), PartitionSpec("data"))
values = jax.make_array_from_callback((8,), sharding, lambda index: np.arange(8.0, dtype=np.float32)[index])
data = iter(grain.MapDataset.range(100)[host::2].repeat().to_iter_dataset())
checkpoints = Checkpoints(sys.argv[1])
for step in (1, 2):
    next(data)
    checkpoints.save(step, {"params": values * step}, data, {"epoch": step})
checkpoints.wait()
jax.experimental.multihost_utils.sync_global_devices("saved")
if host == 0:
    (checkpoints.directory / "2" / "state" / "manifest.ocdbt").unlink()
step, state, progress = checkpoints.restore({"params": values}, data)
assert (step, progress, next(data)) == (1, {"epoch": 1}, 2 + host)
for params in (state["params"], load_parameters(sys.argv[1], "best", values)[1]):
    assert params.sharding == sharding
    assert all((np.asarray(s.data) == np.arange(8.0)[s.index]).all() for s in params.addressable_shards)
checkpoints.close()
"""


def test_all_hosts_continue_from_the_same_checkpoint_each_at_its_own_data(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = [start(ON_TWO_HOSTS, tmp_path, host, port) for host in (0, 1)]
    for host in hosts:
        _, errors = host.communicate(timeout=60)
        assert host.returncode == 0, errors

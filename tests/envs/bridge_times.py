"""What a step over the bridge costs: `PYTHONPATH=. python tests/envs/bridge_times.py`.

The environment does nothing and draws 64 x 64 pixels, so that all that is measured is the bridge.
"""

from __future__ import annotations

import os
import sys
import time

import gymnasium
import numpy as np

STEPS = 3000
PX = 64


class Empty(gymnasium.Env):
    """Stands still."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.seen, self.picture = np.zeros(4, np.float32), np.zeros((PX, PX, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen, {}

    def step(self, action):
        return self.seen, 0.0, False, False, {"is_success": False}

    def render(self):
        return self.picture


gymnasium.register("Empty-v0", Empty)


def times(steps=STEPS):
    """Wall time of each step with its picture `(steps,)`, and processor time per step here and there, in ms."""
    from jepa_mpc.envs.gym.bridge.near_side import BridgedEnv

    env = BridgedEnv("tests.envs.bridge_times:Empty-v0", python=sys.executable, render_mode="rgb_array")
    try:
        env.reset(seed=0)
        walls, action = np.empty(steps), np.zeros(2)
        near, far = time.process_time(), child_s(env)
        for step in range(steps):
            began = time.perf_counter()
            env.step(action)
            picture = env.render()
            walls[step] = time.perf_counter() - began
        near, far = time.process_time() - near, child_s(env) - far
    finally:
        env.close()
    assert picture.shape == (PX, PX, 3)
    return 1000 * walls, 1000 * near / steps, 1000 * far / steps


def child_s(env):
    """Processor seconds of the other process so far (Linux)."""
    with open(f"/proc/{env._child.process.pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    walls, near, far = times()
    low, tenth, middle = np.quantile(walls, (0, 0.1, 0.5))
    lines = (
        f"{STEPS} steps with a picture of {PX} px, load {os.getloadavg()[0]:.1f}",
        f"wall: {low:.3f} ms at best, {tenth:.3f} ms at the tenth percentile, {middle:.3f} ms median",
        f"processor: {near:.3f} ms per step here, {far:.3f} ms in the other process",
    )
    sys.stdout.write("\n".join(lines) + "\n")

"""One small task for all tests of a file: compiling the model once is enough."""

from __future__ import annotations

import pytest

from jepa_mpc import envs


@pytest.fixture(scope="module")
def module_env():
    made = envs.make("reach-v1", image_size=16)
    yield made
    made.close()


@pytest.fixture
def env(module_env, renderable):
    from jepa_mpc.envs.labs import sample_lab

    module_env.reset(seed=1, options={"lab": sample_lab(0)})
    return module_env

"""Rendering without OpenGL: MuJoCo Warp's ray caster, on the CPU.

Slower to start (its kernels are compiled once and cached on disk) and close to the OpenGL images, not equal to them:
overexposed surfaces are brighter.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from PIL import Image

from jepa_mpc.envs.warp_package import import_warp

SUPERSAMPLING = 2
MOVED = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")


class WarpRenderer:
    """Renders named cameras of a model by ray casting, with the interface of `envs.render.Renderer`.

    Args:
        model: The model to render; changes take effect with the next `upload_textures`.

    Raises:
        MissingPackage: If mujoco-warp is not installed.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._warp, self._caster = import_warp("jepa_mpc.envs.render_warp")
        self._views: dict[tuple[str, int], Any] = {}
        self._model: Any = None
        self._data: Any = None

    def upload_textures(self) -> None:
        """Mark the model as changed: it is read again before the next image."""
        self._views.clear()
        self._model = self._data = None

    def draw(self, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """Image of one camera, anti-aliased.

        Args:
            data: State of the scene, with up-to-date kinematics.
            camera: Name of a camera of the model.
            size: Width and height in pixels.

        Returns:
            uint8 `(size, size, 3)`.
        """
        with self._warp.ScopedDevice("cpu"):
            view = self._view(data, camera, size * SUPERSAMPLING)
            for name in MOVED:
                target = getattr(self._data, name)
                target.assign(np.asarray(getattr(data, name), dtype=np.float32).reshape(target.numpy().shape))
            self._caster.refit_bvh(self._model, self._data, view)
            self._caster.render(self._model, self._data, view)
            packed = view.rgb_data.numpy().reshape(size * SUPERSAMPLING, size * SUPERSAMPLING)
        pixels = np.stack([(packed >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)
        return np.asarray(Image.fromarray(pixels).reduce(SUPERSAMPLING))

    def close(self) -> None:
        """Release the buffers."""
        self.upload_textures()

    def _view(self, data: mujoco.MjData, camera: str, size: int) -> Any:
        if self._model is None:
            self._model = self._caster.put_model(self.model)
            self._data = self._caster.put_data(self.model, data)
        if (camera, size) not in self._views:
            number = self.model.camera(camera).id
            self._views[camera, size] = self._caster.create_render_context(
                self.model,
                nworld=1,
                cam_res=(size, size),
                render_rgb=True,
                render_depth=False,
                use_shadows=False,
                enabled_geom_groups=[0, 1, 2],
                cam_active=[index == number for index in range(self.model.ncam)],
            )
        return self._views[camera, size]

"""Offscreen rendering of a MuJoCo scene, through EGL or OSMesa."""

from __future__ import annotations

import logging
import weakref
from importlib.util import find_spec
from typing import Protocol

import mujoco
import numpy as np
from PIL import Image

from jepa_mpc.envs.backend import advice
from jepa_mpc.envs.closing import close_at_exit
from jepa_mpc.errors import MissingPackage

SUPERSAMPLING = 2  # supersampling factor: cheaper than multisampling in software
LARGEST_PX = 768
LOGGER = logging.getLogger(__name__)

_OPEN: weakref.WeakSet[Renderer] = weakref.WeakSet()


class NoOpenGL(MissingPackage):
    """No OpenGL backend is available; the message says which variable to unset or what to install."""

    def __init__(self, cause: str) -> None:
        ImportError.__init__(self, advice(cause))


class Drawer(Protocol):
    """Renders a scene."""

    def draw(self, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """Image `(size, size, 3)` of a named camera."""

    def upload_textures(self) -> None:
        """Update after the model was changed in place."""

    def close(self) -> None:
        """Release all resources."""


def make_renderer(model: mujoco.MjModel) -> Drawer:
    """OpenGL if available, else MuJoCo Warp's ray caster if that package is installed; then a warning is logged.

    Raises:
        NoOpenGL: If there is neither; says what to install.
    """
    try:
        return Renderer(model)
    except NoOpenGL as problem:
        if find_spec("mujoco_warp") is None:
            raise
        LOGGER.warning("MuJoCo Warp casts rays for the images, which is slow and shades otherwise: %s", problem)
    from jepa_mpc.envs.render_warp import WarpRenderer

    return WarpRenderer(model)


class Renderer:
    """Renders named cameras of a model.

    Close it (or use it in a `with` block): it owns an OpenGL context.

    Args:
        model: The model to render; `upload_textures` updates its textures.

    Raises:
        NoOpenGL: If no OpenGL context can be created.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        try:
            self._gl = mujoco.GLContext(int(model.vis.global_.offwidth), int(model.vis.global_.offheight))
            self._gl.make_current()
            self._scene = mujoco.MjvScene(model, maxgeom=200)
            self._context = self._buffers()
        except (AttributeError, ImportError, RuntimeError, OSError, TypeError, ValueError, mujoco.FatalError) as error:
            raise NoOpenGL(f"{type(error).__name__}: {error}") from error
        self._option = mujoco.MjvOption()
        self._open = True
        if not _OPEN:
            close_at_exit(_close_all)
        _OPEN.add(self)

    def upload_textures(self) -> None:
        """Upload the model's textures to OpenGL again, after they were changed in place."""
        self._gl.make_current()
        for texture in range(self.model.ntex):
            mujoco.mjr_uploadTexture(self.model, self._context, texture)

    def draw(self, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """Image of one camera, anti-aliased.

        Args:
            data: State of the scene, with up-to-date kinematics.
            camera: Name of a camera of the model.
            size: Width and height in pixels.

        Returns:
            uint8 `(size, size, 3)`.

        Raises:
            ValueError: If the image is larger than `LARGEST_PX`.
        """
        large = size * SUPERSAMPLING
        if size > LARGEST_PX:
            raise ValueError(f"image size {size} is too large: the limit is {LARGEST_PX} px")
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        view.fixedcamid = self.model.camera(camera).id
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        pixels = self._drawn(large)
        if mujoco.mjr_getError():  # who frees an OpenGL context of MuJoCo while ours is current deletes ours
            self._context.free()
            self._context = self._buffers()
            pixels = self._drawn(large)
            if error := mujoco.mjr_getError():
                raise NoOpenGL(f"OpenGL error {error} in an image of {size} px")
        return np.asarray(Image.fromarray(pixels[::-1]).reduce(SUPERSAMPLING))

    def _buffers(self) -> mujoco.MjrContext:
        context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        return context

    def _drawn(self, side: int) -> np.ndarray:
        """The current scene, `(side, side, 3)`, from the bottom up."""
        self._gl.make_current()
        if side > min(self._context.offWidth, self._context.offHeight):
            mujoco.mjr_resizeOffscreen(side, side, self._context)
        viewport = mujoco.MjrRect(0, 0, side, side)
        mujoco.mjr_render(viewport, self._scene, self._context)
        pixels = np.empty((side, side, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, self._context)
        return pixels

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._open:
            self._open = False
            _OPEN.discard(self)
            self._gl.make_current()
            self._context.free()
            self._gl.free()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close_all() -> None:
    for renderer in list(_OPEN):
        renderer.close()

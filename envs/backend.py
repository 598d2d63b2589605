"""Selects MuJoCo's OpenGL backend, once, before mujoco is imported, without importing it.

MuJoCo loads the libraries of the backend in MUJOCO_GL during import and fails if they are missing. So they are tested
first: without a usable backend rendering is disabled, physics works, and a renderer's error says what to do.
"""

from __future__ import annotations

import ctypes
import os
import sys

LIBRARIES = {"egl": ("libEGL.so.1", "libGL.so.1"), "osmesa": ("libOSMesa.so.8",)}
OFF = "disable"
SWITCHES = {"disable", "disabled", "off", "false", "0", "enable", "enabled", "on", "true", "1", "glfw", "glx"}
NOTE = "MUJOCO_GL_NOTE"  # in the environment, so that child processes inherit it
GIVEN = "MUJOCO_GL_GIVEN"  # likewise: the variables that the user had set
USUAL = "egl"  # the value that mujoco writes to PYOPENGL_PLATFORM
VARIABLES = ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID", "PYOPENGL_PLATFORM")
INSTALL = "'apt-get install -y --no-install-recommends libegl1 libgl1'"


def choose_backend() -> None:
    """Set MUJOCO_GL on Linux: its value if that can be loaded, else EGL or OSMesa, else nothing."""
    given = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name, USUAL) != USUAL]
    os.environ.setdefault(GIVEN, ", ".join(given))
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if not sys.platform.startswith("linux") or wanted in SWITCHES or (not wanted and os.environ.get("DISPLAY")):
        return
    if "mujoco" in sys.modules:
        if not wanted:
            os.environ[NOTE] = "mujoco was imported before envs: import envs first, or set MUJOCO_GL=egl"
        return
    usable = [name for name in ([wanted] if wanted else LIBRARIES) if name in LIBRARIES and loads(name)]
    os.environ["MUJOCO_GL"] = usable[0] if usable else OFF
    if not usable:
        os.environ[NOTE] = f"MUJOCO_GL={wanted} cannot be loaded" if wanted else "neither EGL nor OSMesa is installed"


def loads(backend: str) -> bool:
    """Whether the shared libraries of a backend can be loaded."""
    try:
        for library in LIBRARIES[backend]:
            ctypes.CDLL(library)
    except OSError:
        return False
    return True


def advice(cause: str) -> str:
    """Advice for a failed OpenGL context: names the variable that was set, or what to install.

    Args:
        cause: The original error, for the end of the message.
    """
    given = os.environ.get(GIVEN, "")
    steps = []
    if given:
        names = " and ".join(entry.partition("=")[0] for entry in given.split(", "))
        steps.append(f"unset {names}, so that EGL on the first device is used")
    if not given or not loads("egl"):
        steps.append(f"install EGL with {INSTALL}")
    steps.append("or render without OpenGL: pip install mujoco-warp")
    place = f"with {given}" if given else "for rendering without a display"
    return f"no OpenGL could be opened {place}: {', '.join(steps)} [{os.environ.get(NOTE) or cause}]"

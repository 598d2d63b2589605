"""Commands that answer a mistake in their options with one sentence instead of a page."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

HYDRA_FLAGS = (
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"),
    *("config-path", "config-name", "config-dir", "experimental-rerun", "info"),
)


INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class Stopped(KeyboardInterrupt):
    """The work was asked to end; the message says where it stopped and how to go on."""


def run(command: Callable[[], None], *, name: str) -> None:
    """Run a hydra command.

    A mistake in its options ends it with one sentence and status 1, Ctrl-C or SIGTERM with one and status 130.

    Args:
        command: What `hydra.main` made.
        name: The command's name, told before the sentence.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra then raises what it would have printed
    dashed = [word for word in sys.argv[1:] if word.startswith("--") and word[2:3].isalpha() and _is_option(word)]
    if dashed:
        sys.exit(f"{name}: options are written option=value, without dashes: {dashed[0].lstrip('-')}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be asked to end is Ctrl-C by another way
    try:
        command()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        sys.exit(f"{name}: {sentence(error)}")
    except Stopped as stop:
        interrupted(f"{name}: stopped {stop}")
    except KeyboardInterrupt:
        interrupted(f"{name}: stopped before anything was finished; the same command begins again")


def check_complete(cfg: DictConfig, *, name: str) -> None:
    """End with one sentence if an option without a default was not given.

    Args:
        cfg: The options.
        name: The command's name.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        sys.exit(f"{name}: {' and '.join(missing)} must be given: {given}; --help says what to give")


def interrupted(message: str) -> NoReturn:
    """Say what was interrupted, and end."""
    sys.stderr.write(f"{message}\n")
    sys.exit(INTERRUPTED)


def sentence(error: Exception) -> str:
    """What a mistake in the options comes down to."""
    cause = error.__cause__
    match error:
        case MissingConfigException() if error.options:
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return f"unknown {group} {choice!r}; known: {', '.join(error.options)}"
        case OverrideParseException():
            return f"cannot read {error.override!r}: options are written option=value"
        case ConfigCompositionException() if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"there is no option {cause.full_key!r}{_known(cause.parent_node)}"
    return " ".join(str(error).split())


def _known(parent: Container | None) -> str:
    if not isinstance(parent, DictConfig):
        return "; --help lists them"
    return f"; known: {', '.join(str(key) for key in parent if key not in ('hydra', '_target_'))}"


def _is_option(word: str) -> bool:
    """Whether a word with dashes is none of hydra's own flags."""
    return word[2:].partition("=")[0] not in HYDRA_FLAGS

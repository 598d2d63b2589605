"""Runs commands so that a mistake in the options ends with a one-line error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

HYDRA_FLAGS = (
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"),
    *("config-path", "config-name", "config-dir", "experimental-rerun", "info"),
)


INTERRUPTED = 130
"""Exit status after Ctrl-C, by shell convention."""


class Stopped(KeyboardInterrupt):
    """The work was interrupted; the message says where it stopped and how to resume."""


def run(command: Callable[[], None], *, name: str) -> None:
    """Run a hydra command.

    A mistake in its options ends it with a one-line error and status 1, Ctrl-C with status 130.

    Args:
        command: The function made by `hydra.main`.
        name: The command's name, printed before the error.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra then raises errors instead of printing them
    dashed = [word for word in sys.argv[1:] if word.startswith("--") and word[2:3].isalpha() and _is_option(word)]
    if dashed:
        sys.exit(f"{name}: options are written option=value, without dashes: {dashed[0].lstrip('-')}")
    try:
        command()
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        sys.exit(f"{name}: {sentence(error)}")
    except Stopped as stop:
        interrupted(f"{name}: stopped {stop}")
    except KeyboardInterrupt:
        interrupted(f"{name}: interrupted before anything was saved; the same command starts again")


def check_complete(cfg: DictConfig, *, name: str) -> None:
    """Exit with a one-line error if a required option is missing.

    Args:
        cfg: The options.
        name: The command's name.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        sys.exit(f"{name}: {' and '.join(missing)} must be given: {given}; see --help")


def interrupted(message: str) -> NoReturn:
    """Print what was interrupted, and exit."""
    sys.stderr.write(f"{message}\n")
    sys.exit(INTERRUPTED)


def sentence(error: Exception) -> str:
    """The one-line message of an error in the options."""
    cause = error.__cause__
    match error:
        case MissingConfigException() if error.options:
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return f"unknown {group} {choice!r}; known: {', '.join(error.options)}"
        case OverrideParseException():
            return f"cannot parse {error.override!r}: options are written option=value"
        case ConfigCompositionException() if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"there is no option {cause.full_key!r}{_known(cause.parent_node)}"
    return " ".join(str(error).split())


def _known(parent: Container | None) -> str:
    if not isinstance(parent, DictConfig):
        return "; --help lists them"
    return f"; known: {', '.join(str(key) for key in parent if key not in ('hydra', '_target_'))}"


def _is_option(word: str) -> bool:
    """Whether a word with dashes is not one of hydra's own flags."""
    return word[2:].partition("=")[0] not in HYDRA_FLAGS

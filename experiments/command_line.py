"""Commands that answer a mistake in their options with one sentence instead of a page."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig
from omegaconf.errors import OmegaConfBaseException

HYDRA_FLAGS = (
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"),
    *("config-path", "config-name", "config-dir", "experimental-rerun", "info"),
)


def run(command: Callable[[], None], *, name: str) -> None:
    """Run a hydra command; a mistake in its options, Ctrl-C or SIGTERM, ends it with one sentence and status 1.

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
    except KeyboardInterrupt:
        sys.exit(f"{name}: stopped")


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

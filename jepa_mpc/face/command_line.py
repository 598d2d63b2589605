"""Runs commands so that a mistake in the options ends with a one-line error."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from jepa_mpc.places import CONFIGS

HYDRA_FLAGS = (
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"),
    *("config-path", "config-name", "config-dir", "experimental-rerun", "info"),
)


MOST = 10**9  # of anything that is counted

UNFORESEEN = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
"""Errors of which only the traceback tells what went wrong."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, by shell convention."""


class Stopped(KeyboardInterrupt):
    """The work was interrupted; the message says where it stopped and how to resume."""


def run(command: Callable[[], None], *, name: str) -> None:
    """Run a hydra command.

    A mistake in its options ends it with a one-line error and status 1, Ctrl-C with status 130. Of any other error the
    traceback goes to a file, which the error names.

    Args:
        command: The function made by `hydra.main`.
        name: The command's name, printed before the error.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra then raises errors instead of printing them
    dashed = [word for word in sys.argv[1:] if word.startswith("--") and word[2:3].isalpha() and _is_option(word)]
    if dashed:
        sys.exit(f"{name}: options are written option=value, without dashes: {dashed[0].lstrip('-')}")
    try:
        check_values(sys.argv[1:], CONFIGS / f"{name}.yaml")
        command()
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OverflowError) as error:
        sys.exit(f"{name}: {sentence(error)}")
    except Stopped as stop:
        interrupted(f"{name}: stopped {stop}")
    except KeyboardInterrupt:
        interrupted(f"{name}: interrupted before anything was saved; the same command starts again")
    except UNFORESEEN as error:
        sys.exit(f"{name}: {unexpected(error)}")


def check_values(words: Sequence[str], defaults: Path) -> None:
    """Refuse values that are no numbers where the default is one, and numbers that nothing can work with.

    Args:
        words: The command's words, `option=value` each; those that hydra cannot parse are left to it.
        defaults: The command's configuration; a command without one is not checked.

    Raises:
        ValueError: Names the option and what it takes.
    """
    if not defaults.exists():
        return
    known = OmegaConf.to_container(OmegaConf.load(defaults))
    assert isinstance(known, dict)
    try:
        given = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
    except OverrideParseException:
        return
    for one in given:
        if one.is_sweep_override() or one.is_delete() or one.key_or_group not in known:
            continue
        name, usual, value = str(one.key_or_group), known[str(one.key_or_group)], one.value()
        if isinstance(value, str) and "${" in value:
            continue
        if isinstance(usual, bool) and not isinstance(value, bool | None):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        if type(usual) in (int, float):
            _check_number(name, value, usual)
        if name in ("out", "to", "path") and isinstance(usual, str) and value in (None, ""):
            raise ValueError(f"{name} must name a file or folder, got {value!r}")


def _check_number(name: str, value: Any, usual: float) -> None:
    """Refuse what is no number of the default's kind; the least that makes sense is the command's to say."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return
    whole = isinstance(usual, int) and not name.endswith(("minutes", "_ms"))
    if isinstance(value, str) or math.isnan(value) or (whole and not isinstance(value, int)):
        raise ValueError(f"{name} must be {'a whole number' if whole else 'a number'}, got {value!r}")
    if math.isinf(value) and usual != math.inf:
        raise ValueError(f"{name} must be finite, got {value}")
    if value < 0 <= usual:
        raise ValueError(f"{name} must not be negative, got {value}")
    if name == "threads" and value < 1:
        raise ValueError(f"threads must be at least 1, got {value}")
    if whole and value > MOST and "seed" not in name:
        raise ValueError(f"{name} must be at most {MOST}, got {value}")


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


def unexpected(error: Exception) -> str:
    """The one-line message of an error that no command foresees; its traceback is written to a temporary file."""
    with tempfile.NamedTemporaryFile("w", prefix="jepa-mpc-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    kind, said = type(error).__name__, " ".join(str(error).split())[:300]
    return (
        f"{kind}: {said}. Nothing here foresees this: is an option of another kind than `--help` says? If not, please "
        f"report it with {file.name}"
    )


def sentence(error: Exception) -> str:
    """The one-line message of an error in the options."""
    cause = error.__cause__
    match error:
        case MissingConfigException() if error.options:
            group, _, choice = str(error.missing_cfg_file).rpartition("/")
            return f"unknown {group} {choice!r}; known: {', '.join(error.options)}"
        case OverrideParseException():
            name, equals, value = str(error.override).partition("=")
            quoted = f"; quote what is not plain: \"{name}='{value}'\"" if equals and value else ""
            return f"cannot parse {error.override!r}: options are written option=value{quoted}"
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

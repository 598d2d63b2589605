"""What README and docs show is what the code does: commands have these options, and the programs run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from jepa_mpc.places import CONFIGS
from tests.docs_blocks import PAGES, ROOT, blocks, shell_lines, unquoted
from tests.docs_commands import EXCEPTIONS, SHRUNKEN, STANDS_IN, furnish, session, shrunken
from tests.docs_programs import RELEASED, prepare, runnable

LANGUAGES = {"bash", "python", "text", "mermaid", "xml", "yaml"}
ELSEWHERE = ("-m", "--multirun")  # sweeps are hydra's own: their plugins are optional
COMMANDS = [(line, script, words) for line in shell_lines() for script, words in line.commands()]


def test_every_block_says_its_language():
    assert not [str(block) for block in blocks() if block.language not in LANGUAGES]


def test_the_collector_sees_the_commands():
    assert len(COMMANDS) > 60 and {"zero_shot_reach", "train", "collect"} <= {script for _, script, _ in COMMANDS}


@pytest.mark.parametrize("line", shell_lines(), ids=str)
def test_brackets_are_quoted_for_every_shell(line):
    bare = unquoted(line.text)
    assert not set(bare) & set("[]{}*?()"), f"{line.place}: quote the brackets of {line.text}"


@pytest.mark.parametrize("line, script, words", COMMANDS, ids=lambda value: str(value)[:90])
def test_commands_have_these_options(line, script, words):
    if words and words[0] in ELSEWHERE:
        words = [word for word in words[1:] if not word.startswith("+launch") and "range(" not in word]
    with initialize_config_dir(str(CONFIGS), version_base=None):
        try:
            compose(script, [word for word in words if not word.startswith("--")])
        except HydraException as error:
            pytest.fail(f"{line.place}: {line.text}\n{error}")


def test_every_command_exists():
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert {script for _, script, _ in COMMANDS} <= scripts
    text = "\n".join((ROOT / name).read_text() for name in ("README.md", "docs/architecture.md", "docs/training.md"))
    assert set(re.findall(r"(?<!tests/)experiments/(\w+)\.py", text)) <= scripts


QUICK_STARTS = {"make_env(": 10, "class Point": 15, "MjcfEnv(": 40, "encode_video(": 5}
PROGRAMS = [block for block in blocks() if block.language == "python"]


@pytest.mark.render
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_programs_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example", **prepare(block.code, tmp_path)}
    exec(compile(runnable(block.code), str(block), "exec"), names)  # noqa: S102


@pytest.mark.parametrize("word, most", QUICK_STARTS.items())
def test_quick_starts_are_short(word, most):
    (block,) = (block for block in PROGRAMS if block.page == "README.md" and word in block.code)
    assert len([line for line in block.code.splitlines() if line.strip()]) <= most


def test_exceptions_are_still_there():
    code = "".join(block.code for block in PROGRAMS)
    assert all(word in code for word in RELEASED)


@pytest.mark.slow
@pytest.mark.render
def test_the_commands_run_in_small_settings(tmp_path):
    furnish(tmp_path)
    failed = []
    for number, (script, words) in enumerate(session()):
        if "logs/teleop" in " ".join(words) and not (tmp_path / "logs" / "teleop").exists():
            shutil.copytree(tmp_path / "logs" / "reach", tmp_path / "logs" / "teleop")
        for place, twin in STANDS_IN.items():
            if place in " ".join(words) and not (tmp_path / place).exists():
                shutil.copytree(tmp_path / twin, tmp_path / place)
        options = shrunken(script, words, number)
        for out in [word.removeprefix("out=") for word in options if word.startswith("out=runs/")]:
            shutil.rmtree(tmp_path / out, ignore_errors=True)  # another page has used the name
        command = [sys.executable, str(ROOT / "experiments" / f"{script}.py"), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        if done.returncode:
            failed.append(f"{script} {' '.join(options)}\n    {done.stderr.strip()[-600:]}")
    assert not failed, "\n".join(failed)


def test_every_command_of_the_session_has_small_settings():
    assert {script for script, _ in session()} <= set(SHRUNKEN)


def test_every_exception_is_needed():
    commands = [f"{line.text} {script}" for line, script, _ in COMMANDS]
    assert all(any(re.search(rule, command) for command in commands) for rule in EXCEPTIONS)


SOURCES = r"`((?:jepa_mpc|encoders|world_model|planners|envs|trajectories|experiments|configs|tests)/[\w./-]*\.\w+)`"
PLACEHOLDER = re.compile(r"/x\.\w+$")


def test_files_that_the_pages_name_exist():
    missing = [
        f"{path.name}: {name}"
        for path in PAGES
        if path.name != "log.md"  # a diary keeps the names of its day
        for name in re.findall(SOURCES, path.read_text(encoding="utf-8"))
        if not PLACEHOLDER.search(name) and not (ROOT / name).exists()
    ]
    assert not missing

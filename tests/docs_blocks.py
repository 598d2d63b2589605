"""The code blocks of README and docs, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jepa_mpc.cli import COMMANDS, spelled_out

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        page: The page, relative to the root.
        line: Line of its first line of code.
        language: What stands behind the fence.
        code: Its text.
    """

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Line:
    """A shell command.

    Args:
        place: Page and line.
        text: As it is written, continued lines joined.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place} {self.text[:60]}"

    @property
    def words(self) -> list[str]:
        """As a shell splits it, without its comment."""
        return shlex.split(self.text, comments=True)

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each of our commands in the line: name of its script, and options."""
        for part in re.split(r"\s&&\s", self.text):
            words = shlex.split(part, comments=True)
            for number, word in enumerate(words):
                script = re.fullmatch(r"(?:.*/)?experiments/(\w+)\.py", word)
                if script:
                    entry = next((one for one in COMMANDS.values() if one.script == script[1]), None)
                    given = words[number + 1 :]
                    yield script[1], given if entry is None else spelled_out(entry, given)
                elif word.endswith("jepa-mpc") and number + 1 < len(words) and words[number + 1] in COMMANDS:
                    entry = COMMANDS[words[number + 1]]
                    yield entry.script, spelled_out(entry, words[number + 2 :])


def blocks() -> list[Block]:
    """Every fenced block of every page."""
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Block(str(path.relative_to(ROOT)), line, match[1], match[2]))
    return found


def shell_lines() -> list[Line]:
    """Every command in a shell block, and every inline one."""
    found = []
    for block in blocks():
        if block.language == "bash":
            joined = re.sub(r"\\\n\s*", "", block.code)
            found += [Line(str(block), line) for line in joined.splitlines() if line.strip() and line[0] != "#"]
    for path in PAGES:
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for match in re.finditer(r"`((?:[./\w]*python |jepa-mpc |pip install |zero_shot_reach\.py )[^`]+)`", text):
            command = " ".join(match[1].split())
            command = re.sub(r"^zero_shot_reach\.py", "python experiments/zero_shot_reach.py", command)
            found.append(Line(str(path.relative_to(ROOT)), command))
    return found


def unquoted(text: str) -> str:
    """What of a command a shell would expand: everything outside quotes and before a comment."""
    bare = QUOTED.sub(lambda match: "_" * len(match[0]), text)
    return re.sub(r"(^|\s)#.*", "", bare)

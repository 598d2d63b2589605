"""What the site adds to docs/: the README as its start, the changelog, and sources where API pages look."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SHELVES = ("encoders", "world_model", "planners", "envs", "trajectories")
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#]+)(#[^)]*)?\)")


def on_startup(**_: object) -> None:
    """Lay the packages out as a wheel does: `jepa_mpc` with its subpackages inside (docs/decisions/0004).

    This comes before the plugins look for the sources.
    """
    package = ROOT / "build" / "site_sources" / "jepa_mpc"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "jepa_mpc", package, ignore=_no_sources)
    for shelf in SHELVES:
        shutil.copytree(ROOT / shelf, package / shelf, ignore=_no_sources)


def on_config(config: MkDocsConfig) -> None:
    """List every page of a folder that the navigation names (`systems/`, `decisions/`) by its own title."""
    for section in config.nav or []:
        for title, entry in section.items():
            if isinstance(entry, str) and entry.endswith("/"):
                section[title] = sorted(f"{entry}{page.name}" for page in (ROOT / "docs" / entry).glob("*.md"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages that are made of files beside docs/."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links between these pages at each other; of a link to a file that is no page, only the words stay."""
    return LINK.sub(_link, markdown)


def _link(found: re.Match[str]) -> str:
    words, target, anchor = found[1], found[2], found[3] or ""
    if target in PAGES:
        return f"[{words}]({PAGES[target]}{anchor})"
    page = target.startswith(("http:", "https:")) or target.endswith(".md")
    return found[0] if page else words


def _no_sources(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()]

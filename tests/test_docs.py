"""Every Python block of the README and the docs runs, in order, one namespace per file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks() -> list[object]:
    found = []
    for page in PAGES:
        for k, code in enumerate(BLOCK.findall(page.read_text("utf-8"))):
            found.append(pytest.param(page, code, id=f"{page.name}-{k}"))
    return found


@pytest.mark.parametrize(("page", "code"), blocks())
def test_block_runs(page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("snntorch", reason="needs snntorch")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})  # the reader's own steps


def test_readme_has_blocks() -> None:
    assert len(BLOCK.findall(PAGES[0].read_text("utf-8"))) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

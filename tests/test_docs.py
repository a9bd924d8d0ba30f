"""docs/: every call that a page names exists."""

import re
from pathlib import Path

import pytest

import fastdiff_jax as fd

DOCS = Path(__file__).parents[1] / "docs"


def resolve(name):
    found = fd
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.name)
def test_names_exist(page):
    """`fd.module.a`, `b`: b is looked for where a was found."""
    named = 0
    for line in page.read_text().splitlines():
        where = None
        for name in re.findall(r"`(?:move=)?([A-Za-z_][\w.]*)[`(=]", line):
            if name.startswith("fd."):
                resolve(name)
                where = name.rsplit(".", 1)[0]
                named += 1
            elif where is not None and "." not in name:
                resolve(f"{where}.{name}")
                named += 1
    assert named > 10 or page.name != "papers.md"


def test_links_exist():
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"

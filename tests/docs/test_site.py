"""The documentation as a site: it builds strictly, links lead somewhere, nothing comes from elsewhere."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from scripts.configuration_page import configuration_page

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loaded.append(given["href"])
        elif tag in ("img", "script", "iframe", "source") and given.get("src"):
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    # Not --quiet: what is not logged would not count as a warning.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_and_anchor_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.loaded):
            address = urlsplit(link)
            if address.scheme:
                continue
            base = site if address.path.startswith("/") else path.parent
            target = (base / unquote(address.path).lstrip("/")).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append(f"{path.relative_to(site)}: {link}: no such file")
            elif (
                address.fragment
                and target in pages
                and unquote(address.fragment) not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(site)}: {link}: no such anchor")
    assert not broken


def test_nothing_is_loaded_from_elsewhere(pages):
    assert not [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc]


def test_links_of_the_readme_lead_somewhere_on_their_own():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = {part.split(")")[0].split("#")[0] for part in text.split("](")[1:]}
    assert not [name for name in targets if name and not urlsplit(name).scheme and not (ROOT / name).exists()]


def test_every_setting_says_what_it_means(site):
    rows = [line.split("|") for line in configuration_page().splitlines() if line.startswith("| `--")]
    assert len(rows) > 100
    assert not [row[1].strip() for row in rows if not row[-2].strip()]
    assert any("--tolerance" in row[1] for row in rows)
    assert "--clustering.k" in (site / "configuration.html").read_text(encoding="utf-8")

"""Generated pages of the site: home, configuration, API reference."""

import pkgutil
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kernels", "hcl", "pipelines")
"""Packages in the API reference: a page each, and one for every package directly in `hcl`."""
PROJECT_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation with unlisted pages, the project's own pages and the API reference."""
    listed = str(config.nav)
    written = sorted(
        path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")
    )
    if unplaced := [name for name in written if f"'{name}'" not in listed]:
        config.nav.append({"More": unplaced})
    config.nav.append({"The project": list(PROJECT_PAGES)})
    config.nav.append({"API": [{name: f"api/{name}.md"} for name in api_pages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages (a hook of MkDocs)."""
    sys.path.insert(0, str(ROOT))  # MkDocs is started by its own script, and the root is not on its path
    from scripts.configuration_page import configuration_page

    pages = {"index.md": as_in_docs("README.md"), "configuration.md": configuration_page()}
    pages |= {name: as_in_docs(name) for name in PROJECT_PAGES}
    pages |= {f"api/{name}.md": page for name, page in api_pages().items()}
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def as_in_docs(name: str) -> str:
    """Read a page of the project's root, with its links as seen from within docs/."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def api_pages() -> dict[str, str]:
    """Return a page for every package: the docstrings of its modules, for mkdocstrings."""
    pages = {}
    for package in (*PACKAGES, *(f"hcl.{name}" for name in subpackages("hcl"))):
        blocks = [f"::: {module}" for module in modules(package)]
        pages[package] = "\n\n".join([f"# {package}", *blocks]) + "\n"
    return pages


def subpackages(package: str) -> list[str]:
    """List the names of the packages directly in a package."""
    return [module.name for module in pkgutil.iter_modules([str(ROOT / package)]) if module.ispkg]


def modules(package: str) -> list[str]:
    """List the modules of a package's page; the packages in `hcl` have pages of their own."""
    if package == "kernels":
        return [f"kernels.{name}" for name in subpackages("kernels")]
    folder = ROOT / package.replace(".", "/")
    found = [module for module in pkgutil.iter_modules([str(folder)]) if not module.ispkg]
    return [package, *(f"{package}.{module.name}" for module in found)]

"""What the site adds to the written pages: places in the navigation, the project's own pages, the API."""

from mkdocs.config import load_config

from scripts.mkdocs_pages import ROOT, api_pages, as_in_docs, on_config


def test_a_page_without_a_place_is_put_under_more(tmp_path):
    for name in ("data.md", "reliability-data.md", "new.md"):
        (tmp_path / name).write_text("# A page\n")
    config = load_config(str(ROOT / "mkdocs.yml"))
    config.docs_dir = str(tmp_path)
    config.nav = [{"Home": "index.md"}, {"Reliability": ["reliability-data.md"]}, {"New": "new.md"}]
    assert {"More": ["data.md"]} in on_config(config).nav


def test_every_package_has_a_page_of_its_own():
    packages = {path.parent.name for path in (ROOT / "hcl").glob("*/__init__.py")}
    assert {f"hcl.{name}" for name in packages} <= api_pages().keys()
    assert "::: kernels.kmeans\n" in api_pages()["kernels"]


def test_links_of_the_readme_lead_from_within_the_docs():
    assert "](docs/" not in as_in_docs("README.md")
    assert "](images/components.png)" in as_in_docs("README.md")

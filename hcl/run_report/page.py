"""The page itself: one self-contained file."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hcl.figures.curves import clustering_chart, loss_chart, of_clusterings, of_losses
from hcl.files import written_whole
from hcl.run_report.evaluations import Evaluation
from hcl.run_report.pictures import Pictures
from hcl.run_report.run_files import RunRecord


def render(run: RunRecord, evaluations: list[Evaluation], pictures: Pictures | None) -> str:
    """Render a run's page as HTML; everything that comes from files is escaped."""
    environment = Environment(
        loader=PackageLoader("hcl.run_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    losses, clusterings = of_losses(run.records), of_clusterings(run.records)
    return environment.get_template("report.html").render(
        run=run,
        title=_title(run),
        at_a_glance=_at_a_glance(losses, evaluations),
        losses=losses,
        loss_chart=loss_chart(losses) if losses else None,
        clusterings=clusterings,
        clustering_chart=clustering_chart(clusterings) if clusterings else None,
        evaluations=evaluations,
        pictures=pictures,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def write_page(html: str, path: Path) -> None:
    """Write the page, completely or not at all."""
    with written_whole(path) as file:
        file.write(html.encode(errors="replace"))


def _title(run: RunRecord) -> str:
    """Name the run by its folder, its backbone and its data, so that browser tabs can be distinguished."""
    name = run.folder.resolve().name
    backbone, data = (run.settings.get(group, {}) for group in ("backbone", "data"))
    if "name" not in backbone or "kind" not in data:
        return name
    return f"{name}: {backbone['name']} on {data['kind']} {data.get('split', '')}".rstrip()


def _at_a_glance(losses: list[Any], evaluations: list[Evaluation]) -> dict[str, str]:
    """Return the few numbers that readers look for first, by name."""
    glance = {}
    if losses:
        glance["steps"] = f"{losses[-1]['step']:,}"
        glance["last loss"] = f"{losses[-1]['loss']:.3f}"
    if losses and "images_per_second" in losses[-1]:
        glance["images per second"] = f"{losses[-1]['images_per_second']:.1f}"
    glance["evaluations"] = str(len(evaluations))
    return glance

"""``evaluate.py explore``: serve the page, on this computer only."""

import socket
from contextlib import suppress
from dataclasses import dataclass

from hcl.bounds import require_above_zero, require_at_least
from hcl.data.dataset import DataConfig, open_dataset
from hcl.distributed import World
from hcl.explore.explorer import Explorer
from hcl.explore.hierarchy import Hierarchy
from hcl.explore.library import fill
from hcl.inference.config import InferenceConfig, open_segmenter
from pipelines.usable import usable

ADDRESS = "127.0.0.1"


@dataclass(kw_only=True)
class ExploreConfig(InferenceConfig):
    """A page on this computer to explore components: click a part, see where else it occurs.

    Args:
        data: images in which to look for parts; labels are not read.
        images: number of images to take, spread evenly over the data set.
        clusters: number of clusters that the page begins with.
        most_clusters: largest number of clusters that the page offers.
        leaves: number of small clusters, which are merged into fewer ones.
        neighbours: number of images in which a part is shown.
        most_megabytes: maximum size of an uploaded file in megabytes.
        most_megapixels: maximum size of an uploaded photograph in megapixels.
        port: port of the page at 127.0.0.1; 0 takes a free one.
        seed: seed of k-means.
    """

    data: DataConfig
    images: int = 100
    clusters: int = 20
    most_clusters: int = 80
    leaves: int = 240
    neighbours: int = 12
    most_megabytes: float = 25
    most_megapixels: float = 60
    port: int = 8765
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "images", "neighbours")
        require_at_least(0, self, "seed")
        require_above_zero(self, "most_megabytes", "most_megapixels")
        if not 2 <= self.clusters <= self.most_clusters <= self.leaves:
            raise ValueError(
                f"clusters, most_clusters and leaves are {self.clusters}, {self.most_clusters} and "
                f"{self.leaves}; they must be in ascending order, and at least 2"
            )
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must lie between 0 and 65535")


def run(config: ExploreConfig, world: World) -> None:
    """Compute the data set's tokens and serve the page until Ctrl-C; only the main rank does so.

    Raises:
        FileNotFoundError: the checkpoint, its backbone's weights, or data are missing.
        ValueError: a file cannot be used.
        ModuleNotFoundError: the extra ``explore`` is not installed.
    """
    if not world.is_main:
        return
    try:
        import uvicorn

        from hcl.explore.app import build_app
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"explore needs the package {error.name}, which is not installed: "
            "pip install '.[explore]' in the project's folder"
        ) from error
    listening = _listen(config.port)
    segmenter = open_segmenter(config, world)
    dataset = usable(open_dataset(config.data).spread_out(config.images), config.data.on_error)
    print(f"computing the tokens of {len(dataset)} images of {dataset.name}", flush=True)
    library = fill(dataset, segmenter, config.batch_size, world)
    hierarchy = Hierarchy.of(library.tokens, config.leaves, seed=config.seed)
    explorer = Explorer(segmenter, library, hierarchy, neighbours=config.neighbours)
    app = build_app(
        explorer,
        most_bytes=int(config.most_megabytes * 1e6),
        most_pixels=int(config.most_megapixels * 1e6),
        clusters=min(config.clusters, len(hierarchy.leaves)),
        most_clusters=config.most_clusters,
    )
    print(f"http://{ADDRESS}:{listening.getsockname()[1]} (press Ctrl-C to stop)", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
        server.run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    """Listen on a local port before anything is computed; requests that come early wait."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ValueError(f"port {port} cannot be used ({error.strerror}): choose another --port") from error
    return listening

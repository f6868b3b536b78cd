"""Communities of clusters that occur next to each other (HCL, section 7, step 5)."""

from types import ModuleType

import torch
from torch import Tensor


def edges(cooccurrence: Tensor, threshold: float = 0.03) -> list[tuple[int, int, float]]:
    """Build the undirected graph of a co-occurrence matrix (HCL, section 7, step 4).

    Args:
        cooccurrence: (ids, ids), the matrix P from `hcl.evaluation.cooccurrence`.
        threshold: both P_ij and P_ji must reach it.

    Returns:
        i, j and weight min(P_ij, P_ji) of each edge, with i < j, sorted by i and j.
    """
    weights = torch.minimum(cooccurrence, cooccurrence.T).triu(diagonal=1).cpu()
    first, second = ((weights >= threshold) & (weights > 0)).nonzero(as_tuple=True)
    values = weights[first, second]
    return list(zip(first.tolist(), second.tolist(), values.tolist(), strict=True))


def communities(
    cooccurrence: Tensor,
    *,
    threshold: float = 0.03,
    seed: int = 1,
    markov_time: float = 1.0,
    preferred_modules: int = 20,
) -> Tensor:
    """Group ids into communities with Infomap: undirected, two levels, one trial.

    Rosvall and Bergstrom, "Maps of random walks on complex networks reveal community structure", 2008.

    Args:
        cooccurrence: (ids, ids) float, any device.
        threshold: threshold of the edges, see `edges`.
        seed: seed of Infomap, at least 1; the published seeds are 1 to 10.
        markov_time: Markov time of the random walk; a longer one gives fewer communities.
        preferred_modules: number of communities that Infomap is told to prefer.

    Returns:
        (ids,) int64, on the matrix's device: Infomap's modules, numbered from 0. All ids without an edge form
        one more community, the last, as in Leopart's program, which gives all of them the same id.

    Raises:
        ModuleNotFoundError: Infomap is not installed.
    """
    found = torch.full((len(cooccurrence),), -1, dtype=torch.int64)
    links = edges(cooccurrence, threshold)
    if links:
        infomap = require_infomap()
        network = infomap.Network()
        network.add_links(links)
        options = infomap.Options(
            two_level=True,
            flow_model="undirected",
            seed=seed,
            markov_time=markov_time,
            preferred_number_of_modules=preferred_modules,
            silent=True,
        )
        modules = infomap.run(network, options=options).modules()
        found[list(modules)] = torch.tensor(list(modules.values())) - 1
    found[found < 0] = found.max() + 1
    return found.to(cooccurrence.device)


def require_infomap() -> ModuleType:
    """Import and return Infomap.

    Raises:
        ModuleNotFoundError: Infomap is not installed.
    """
    try:
        import infomap
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "community detection needs the package infomap: "
            "pip install '.[evaluation]' in the project's folder",
            name="infomap",
        ) from missing
    return infomap

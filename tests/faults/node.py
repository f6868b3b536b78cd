"""A rank of one of two nodes, of which one dies in the first attempt and one waits: `node.py FOLDER`."""

import os
import sys
import time
from pathlib import Path

from hcl.distributed import connect


def main(folder: Path) -> None:
    """Meet the other rank, then fail in the first attempt and say so in a later one."""
    node = os.environ["NODE"]
    met = folder / f"{node}.met"
    with connect("cpu") as world:
        world.barrier()
        if met.exists():
            met.write_text("again")
            return
        met.write_text("once")
        world.barrier()
        if node == "dies":
            os._exit(1)
        time.sleep(600)  # as over NCCL, which does not tell a rank that waits that another is gone


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What a GPU refuses and what it does not, on one that is not there: `mixtures.py DRIVER`."""

import sys

from tests.absent_gpu.program import begin, end


def main(driver: str) -> None:
    emulation = begin(driver)
    import numpy as np
    import pytest
    import torch

    with emulation.Emulation():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for mixture in (
            lambda: there + here,
            lambda: torch.dot(there, here),
            lambda: torch.nn.functional.linear(there, torch.nn.Linear(3, 3).weight),
            lambda: torch.stack([there[0], here[0]]),
            lambda: here[there.long() - 1],
        ):
            with pytest.raises(emulation.MixedDevicesError):
                mixture()
        for asked_for in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="no NumPy form"):
                asked_for()
        there += here.sum()
        there[torch.tensor([0])] = 7.0
        there[1] = here[0]
        assert here.copy_(there).tolist() == there.cpu().tolist() == [7.0, 1.0, 4.0]
        leaf = there.clone().requires_grad_()
        (leaf * leaf).sum().backward()
        assert leaf.grad.device.type == "cuda"
        assert leaf.grad.tolist() == [14.0, 2.0, 8.0]


if __name__ == "__main__":
    main(sys.argv[1])
    end(0)

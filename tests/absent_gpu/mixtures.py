"""What a GPU refuses and what it does not, on one that is not there: `mixtures.py DRIVER`."""

import sys

from tests.absent_gpu.program import begin, end


def main(driver: str) -> None:
    emulation = begin(driver)
    import torch

    with emulation.Emulation():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        refused = {
            "sum": lambda: there + here,
            "product": lambda: torch.dot(there, here),
            "row of one number": lambda: torch.stack([there[0], here[0]]),
            "selection here by an index there": lambda: here[there.long() - 1],
            "NumPy": lambda: there.numpy(),
            "array": lambda: torch.nn.functional.linear(there, torch.nn.Linear(3, 3).weight),
        }
        for name, mixture in refused.items():
            try:
                mixture()
            except (emulation.MixedDevicesError, TypeError):
                continue
            raise SystemExit(f"{name}: not refused")
        there += here.sum()
        there[torch.tensor([0])] = 7.0
        assert here.copy_(there).tolist() == there.cpu().tolist() == [7.0, 4.0, 4.0]
        leaf = there.clone().requires_grad_()
        (leaf * leaf).sum().backward()
        assert leaf.grad.device.type == "cuda"
        assert leaf.grad.tolist() == [14.0, 8.0, 8.0]


if __name__ == "__main__":
    main(sys.argv[1])
    end(0)

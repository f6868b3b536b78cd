"""Descriptions of kernels, from which they can be compiled without a GPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triton.runtime.jit import JITFunction

Path = tuple[int, ...]

HOPPER = ("sm_90",)
NOT_HOPPER = ("sm_80", "sm_89", "sm_100", "gfx942")
ROOMY = ("sm_90", "sm_100")
"""Targets where a block can use 227 KiB of shared memory."""
NOT_ROOMY = ("sm_80", "sm_89", "gfx942")
CRAMPED = ("sm_89",)
"""Targets where a block can use 99 KiB, as also on sm_86 and sm_120."""


@dataclass(frozen=True)
class CompileCase:
    """One kernel at one configuration that its launcher can choose for a documented size.

    Attributes:
        name: kernel, size and dtype, for the report.
        fn: the kernel.
        signature: every argument's type in Triton's notation ("*fp32", "i32", "constexpr"; "i32:16" where
            sixteen divides the integer), and a tuple of these for a tuple.
        constexprs: the values of the constexpr arguments.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
        targets: the architectures on which the launcher chooses it; empty: all.
    """

    name: str
    fn: "JITFunction"
    signature: Mapping[str, Any]
    constexprs: Mapping[str, object]
    num_warps: int
    num_stages: int
    targets: tuple[str, ...] = ()

    @property
    def types(self) -> dict[str, Any]:
        """The signature without the hints about values (":16")."""
        return {
            name: _map(lambda kind: kind.partition(":")[0], kind) for name, kind in self.signature.items()
        }

    @property
    def attrs(self) -> dict[Path, list[tuple[str, int]]]:
        """The launcher's hints to the compiler: pointers from torch are 16-byte aligned."""
        leaves = _leaves(tuple(self.signature.values()), ())
        aligned = [path for path, kind in leaves.items() if kind.startswith("*") or kind.endswith(":16")]
        return {path: [("tt.divisibility", 16)] for path in aligned}


def _map(function: Callable[[str], str], kind: Any) -> Any:
    return tuple(_map(function, part) for part in kind) if isinstance(kind, tuple) else function(kind)


def _leaves(kind: Any, path: Path) -> dict[Path, str]:
    if not isinstance(kind, tuple):
        return {path: kind}
    return {p: leaf for i, part in enumerate(kind) for p, leaf in _leaves(part, (*path, i)).items()}

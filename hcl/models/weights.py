"""Reading weights that others saved (HCL, section 9), without ever executing what a file holds.

Reading takes no more memory than the file's size: an archive is read only if nothing in it is compressed, a
tensor only if every element of it is stored, and a module is built only once its weights are known to be
there.
"""

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hcl.models.unpickling import tensors_in, unpickled

State = dict[str, Tensor]
_ARCHIVE = b"PK\x03\x04"  # beginning of a file that torch reads as an archive


class CheckpointError(ValueError):
    """A checkpoint file cannot be used; the message names the file and the reason."""


def read_checkpoint(path: str | Path, kind: str = "checkpoint file") -> dict[str, Any]:
    """Load a checkpoint's dict onto the CPU; only tensors and plain containers are accepted.

    A file named ``*.safetensors`` is read as such, any other as one of ``torch.save``. numpy's numbers become
    Python numbers, and its arrays of numbers become tensors.

    Args:
        path: path of the file.
        kind: what the error calls the file if it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the path is the folder of a run; or the file is damaged, would execute code, would
            take more memory than its size, or holds something other than a dict.
    """
    path = Path(path)
    refuse_run(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {kind} {path}")
    try:
        content = _read(path)
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged: it is truncated or altered ({error})") from error
    except pickle.UnpicklingError as error:
        # torch wraps the reason in advice to load the file unsafely.
        reason = error.__context__ if isinstance(error.__context__, pickle.UnpicklingError) else error
        if not _holds_pickles(path):
            raise CheckpointError(
                f"{path} cannot be read as a checkpoint: it is not one, or it is damaged"
            ) from error
        raise CheckpointError(
            f"{path} was refused ({first_sentence(reason)}): only tensors and plain containers are read, "
            "because anything else could execute code"
        ) from error
    except Exception as error:  # arbitrary bytes can make a reader raise anything
        # If the bytes are not a sensible pickle, the reader's message does not help a user either.
        within = isinstance(error, LookupError | TypeError | AttributeError)
        told = "" if within else f" ({first_sentence(error)})"
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is not one, or it is damaged{told}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    _require_stored(content, path)
    return content


def _holds_pickles(path: Path) -> bool:
    """Whether a file begins like an archive of torch, or like a pickle of protocol 2 or later."""
    with path.open("rb") as file:
        beginning = file.read(len(_ARCHIVE))
    return beginning == _ARCHIVE or beginning[:1] == pickle.PROTO


def refuse_run(path: Path) -> None:
    """Raise CheckpointError for the folder of a run; the message says which of its files to give."""
    if (inside := path / "checkpoint.pt").is_file():
        raise CheckpointError(f"{path} is the folder of a run: give its checkpoint {inside}")


def load_into(module: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Copy a state dict into a module, which keeps its dtype and device.

    Raises:
        CheckpointError: keys are missing, unknown, of another shape, of another kind of number (integer or
            complex for real), or not finite; the message lists them.
    """
    require_fit(module, state, path)
    module.load_state_dict(state)


def require_fit(module: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Raise CheckpointError if `load_into` would."""
    expected = module.state_dict()
    problems = [
        *(
            f"{key} {problem}"
            for key, tensor in expected.items()
            if key in state and (problem := _misfit(state[key], tensor))
        ),
        *(f"{key} is missing" for key in expected if key not in state),
        *(f"{key} is unknown" for key in state if key not in expected),
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit this {type(module).__name__}: {listed(problems)}")


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with path.open("rb") as file:
        archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if archive:
        _require_sound_archive(path)
    return unpickled(path)


def _require_sound_archive(path: Path) -> None:
    """Refuse an archive whose entries claim more bytes than the file has, or do not match their checksums."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
        start = min((entry.header_offset for entry in archive.infolist()), default=0)
        if start != 0:  # zipfile and torch look for the directory in different places
            raise CheckpointError(f"{path} was refused: its archive does not begin with its first entry")
        if claimed > size:
            raise CheckpointError(
                f"{path} was refused: it has {size} bytes and would unpack to {claimed} (torch.save does not "
                "compress)"
            )
        if damaged := archive.testzip():  # torch does not check this
            raise CheckpointError(f"{path} is damaged: the checksum of {damaged} in it does not match")


def _require_stored(content: dict[str, Any], path: Path) -> None:
    """Refuse tensors that are larger than what the file stores of them, or that are not plain CPU tensors."""
    claimed: dict[int, int] = {}
    for tensor in tensors_in(content):
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} was refused: a tensor of shape {tuple(tensor.shape)} is not stored element by "
                "element"
            )
        claimed[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    if sum(claimed.values()) > path.stat().st_size:
        raise CheckpointError(
            f"{path} was refused: its tensors claim {sum(claimed.values())} bytes, more than it has"
        )


def _misfit(value: Any, expected: Tensor) -> str | None:
    """Why a value cannot replace a tensor, or None."""
    if not isinstance(value, Tensor) or value.shape != expected.shape:
        return f"is {described(value)} in the file, {tuple(expected.shape)} in the model"
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex():
        return f"is {value.dtype} in the file, {expected.dtype} in the model"
    if not torch.isfinite(value.to(expected.dtype)).all():
        return "holds values that are not finite"
    return None


def described(value: object) -> str:
    """A tensor's shape, or the type of any other value, for a message."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def listed(items: Iterable[str]) -> str:
    """The first eight items, and how many more there are, for a message."""
    items, most = list(items), 8
    rest = len(items) - most
    return "; ".join(items[:most]) + (f"; and {rest} more" if rest > 0 else "")


def first_sentence(error: Exception) -> str:
    """The first sentence of an error's message, without advice that may follow."""
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")

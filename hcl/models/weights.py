"""Reading weights that others saved (HCL, section 9), without ever executing what a file holds.

A file takes no more memory than its size: an archive is read only if nothing in it is compressed, a tensor
only if every element of it is stored, and a module is built only once its weights are known to be there.
"""

import json
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.unpickling import tensors_in, unpickled

State = dict[str, Tensor]
Branch = Literal["momentum", "online"]
"""The two heads of a checkpoint: the moving average, and the one that the optimiser trained."""
PRETRAINED_WEIGHTS = "model.safetensors"
"""The file of weights in a folder in the form of Hugging Face's Hub."""
_ARCHIVE = b"PK\x03\x04"  # what torch takes for an archive begins so


class CheckpointError(ValueError):
    """A checkpoint file cannot be used; the message names the file and the reason."""


def read_checkpoint(path: str | Path, kind: str = "checkpoint file") -> dict[str, Any]:
    """Load a checkpoint's dict onto the CPU; only tensors and plain containers are accepted.

    A file named ``*.safetensors`` is read as such, any other as one of ``torch.save``. numpy's numbers become
    Python's, and its arrays of numbers tensors.

    Args:
        path: of the file.
        kind: what the file is called where it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is the folder of a run; or the file is damaged, would execute code, would take
            more memory than its size, or holds something other than a dict.
    """
    path = Path(path)
    _refuse_run(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {kind} {path}")
    try:
        content = _read(path)
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged: it is cut short or altered ({error})") from error
    except pickle.UnpicklingError as error:
        # torch wraps the reason in advice to load the file unsafely.
        reason = error.__context__ if isinstance(error.__context__, pickle.UnpicklingError) else error
        if not _holds_pickles(path):
            raise CheckpointError(f"{path} cannot be read as a checkpoint: it is none, or damaged") from error
        raise CheckpointError(
            f"{path} was refused ({_first_sentence(reason)}): only tensors and plain containers are read, "
            "because anything else could execute code"
        ) from error
    except Exception as error:  # what a reader raises at bytes that nobody wrote has no one kind
        # Where bytes make no sense as a pickle, what the reader says of them makes none to a person.
        within = isinstance(error, LookupError | TypeError | AttributeError)
        told = "" if within else f" ({_first_sentence(error)})"
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is none, or damaged{told}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    _require_stored(content, path)
    return content


def _holds_pickles(path: Path) -> bool:
    """Whether a file begins as archives of torch do, or as pickles from protocol 2 on."""
    with path.open("rb") as file:
        beginning = file.read(len(_ARCHIVE))
    return beginning == _ARCHIVE or beginning[:1] == pickle.PROTO


def _refuse_run(path: Path) -> None:
    if (inside := path / "checkpoint.pt").is_file():
        raise CheckpointError(f"{path} is the folder of a run: give its {inside}")


def load_into(module: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Copy a state dict into a module, which keeps its dtype and device.

    Raises:
        CheckpointError: keys are missing, unknown, of another shape, of another kind of number (integer or
            complex for real), or not finite; the message lists them.
    """
    _require_fit(module, state, path)
    module.load_state_dict(state)


def _require_fit(module: nn.Module, state: dict[str, Any], path: str | Path) -> None:
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
        raise CheckpointError(f"{path} does not fit this {type(module).__name__}: {_listed(problems)}")


def load_seg_head(path: str | Path, branch: Branch = "momentum", *, heads: int | None = None) -> SegHead:
    """Rebuild a SegHead from a published ``hcl_*.pth.tar``, a checkpoint of this project or the Hub's form.

    Args:
        path: a checkpoint with ``momentum_seg_head`` and ``online_seg_head``; or a folder in the Hub's form
            (`hcl.models.pretrained`), or its ``.safetensors`` alone, which hold one of the two.
        branch: which of the two.
        heads: attention heads of a transformer block, the one figure that the tensors' shapes do not tell. A
            checkpoint of this project and a config.json record it, and then that counts; published
            checkpoints do not, and have 12; of a ``.safetensors`` alone it must be said.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint` and `load_into`; or nobody says how many
            heads a block has.
    """
    return seg_head_of(read_head_checkpoint(path), path, branch, heads=heads)


def read_head_checkpoint(path: str | Path) -> dict[str, Any]:
    """Whatever `load_seg_head` takes, laid out as a checkpoint of this project.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint`; or it is a backbone's file.
    """
    read = _read_pretrained(Path(path)) if is_pretrained(path) else read_checkpoint(path)
    heads = [held for name, held in read.items() if str(name).endswith("_seg_head")]
    if any("cls_token" in held for held in heads or [read] if isinstance(held, dict)):
        raise CheckpointError(
            f"{path} holds a backbone and no trained head: give it by --backbone.weights, and a head's "
            "checkpoint by --checkpoint"
        )
    return read


def is_pretrained(path: str | Path) -> bool:
    """Whether a path is taken for the Hub's form: a head, perhaps its backbone's name, and nothing else."""
    return Path(path).is_dir() or Path(path).suffix == ".safetensors"


def seg_head_of(
    checkpoint: dict[str, Any],
    path: str | Path,
    branch: Branch = "momentum",
    *,
    heads: int | None = None,
) -> SegHead:
    """As `load_seg_head`, of a checkpoint that was read already; ``path`` is named in errors."""
    state = _section(checkpoint, f"{branch}_seg_head", path)
    width, in_features = _shape(state, "multi_scale_fuser.weight", 2, path)
    (hidden,) = _shape(state, "projection_head.0.bias", 1, path)
    (projection_dim,) = _shape(state, "projection_head.4.bias", 1, path)
    kind: Literal["block", "mlp"] = "block" if "seg_head.attn.qkv.weight" in state else "mlp"
    recorded = _recorded_heads(checkpoint)
    known = heads if recorded is None else recorded
    if known is None:
        if kind == "block" and is_pretrained(path):
            raise CheckpointError(
                f"{path} does not say how many attention heads its block has: say it (--heads), as 12"
            )
        known = SegHeadConfig.heads
    try:
        config = SegHeadConfig(kind, width, hidden, projection_dim, known)
        with torch.device("meta"):  # no memory yet: vectors alone could ask for matrices without end
            head = SegHead(in_features, config)
    except ValueError as error:
        raise CheckpointError(f"{path} holds no SegHead: {error}") from error
    _require_fit(head, state, path)
    head.to_empty(device="cpu").load_state_dict(state)
    return head


def _read_pretrained(path: Path) -> dict[str, Any]:
    """A head in the Hub's form, laid out as a checkpoint."""
    file = path / PRETRAINED_WEIGHTS if path.is_dir() else path
    if not file.exists():
        _refuse_run(path)
    state = read_checkpoint(file)
    settings: Any = {}
    if (told := file.with_name("config.json")).is_file():
        try:
            settings = json.loads(told.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{told} cannot be read as JSON: {_first_sentence(error)}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{told} holds a {type(settings).__name__}, not settings by name")
    backbone = None
    if "backbone" in settings:
        backbone = {"name": settings["backbone"], "patch_sizes": settings.get("patch_sizes")}
    keep_mass = settings.get("keep_mass")
    clustering = None if keep_mass is None else {"keep_mass": keep_mass}
    return {
        f"{settings.get('branch', 'momentum')}_seg_head": state,
        "config": {"head": settings.get("shape"), "backbone": backbone, "clustering": clustering},
    }


def load_linear_classifier(path: str | Path) -> nn.Conv2d:
    """Rebuild the 1x1 convolution of a ``linear_classifier_*.pth.tar``: component tokens to classes.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint` and `load_into`.
    """
    state = _section(read_checkpoint(path, "linear classifier"), "linear_classifier", path)
    weight = state.get("weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.shape[2:] != (1, 1) or not weight.numel():
        raise CheckpointError(f"{path} holds no 1x1 convolution: weight is {_describe(weight)}")
    classifier = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1)
    load_into(classifier, state, path)
    return classifier


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with path.open("rb") as file:
        archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if archive:
        _require_sound_archive(path)
    return unpickled(path)


def _require_sound_archive(path: Path) -> None:
    """Refuse an archive whose entries claim more bytes than the file has, or other checksums than theirs."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
        start = min((entry.header_offset for entry in archive.infolist()), default=0)
        if start != 0:  # zipfile looks for the directory elsewhere than torch does: they may see two archives
            raise CheckpointError(f"{path} was refused: as an archive it does not begin with its first entry")
        if claimed > size:
            raise CheckpointError(
                f"{path} was refused: it has {size} bytes and would unpack to {claimed} (torch.save does not "
                "compress)"
            )
        if damaged := archive.testzip():  # which torch overlooks
            raise CheckpointError(f"{path} is damaged: {damaged} in it does not have its checksum")


def _require_stored(content: dict[str, Any], path: Path) -> None:
    """Refuse tensors that are larger than what the file holds of them, or no plain tensors of the CPU."""
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
        raise CheckpointError(f"{path} was refused: its tensors claim {sum(claimed.values())} bytes")


def _misfit(value: Any, expected: Tensor) -> str | None:
    """Why a value cannot take the place of a tensor, or None."""
    if not isinstance(value, Tensor) or value.shape != expected.shape:
        return f"is {_describe(value)} in the file, {tuple(expected.shape)} in the model"
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex():
        return f"is {value.dtype} in the file, {expected.dtype} in the model"
    if not torch.isfinite(value.to(expected.dtype)).all():
        return "holds values that are not finite"
    return None


def _section(checkpoint: dict[str, Any], name: str, path: str | Path) -> State:
    """One state dict of a checkpoint, without the prefix that DistributedDataParallel adds."""
    section = checkpoint.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{path} has no {name}; it holds {_listed(map(str, checkpoint))}")
    return {str(key).removeprefix("module."): tensor for key, tensor in section.items()}


def _shape(state: State, key: str, dimensions: int, path: str | Path) -> tuple[int, ...]:
    value = state.get(key)
    if not isinstance(value, Tensor) or value.ndim != dimensions or not value.numel():
        found = "missing" if value is None else _describe(value)
        raise CheckpointError(f"{path} holds no SegHead: {key} is {found}")
    return tuple(value.shape)


def _recorded_heads(checkpoint: dict[str, Any]) -> int | None:
    """The number of attention heads in a checkpoint of this project; published ones do not say."""
    section: Any = checkpoint
    for name in ("config", "head", "heads"):
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, int) else None


def _describe(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _listed(items: Iterable[str], most: int = 8) -> str:
    items = list(items)
    rest = len(items) - most
    return "; ".join(items[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")

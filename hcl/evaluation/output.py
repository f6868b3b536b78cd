"""The output folder of an evaluation: fit to be written to before there is work to lose, and of one kind."""

import json
from pathlib import Path

from hcl.evaluation.protocol import ProtocolConfig
from hcl.evaluation.report import METRICS, as_json, settings_of
from hcl.files import probe, unwritable
from hcl.nested_settings import changed_settings

FREE = frozenset(
    {"output", "overwrite", "threads", "device", "deterministic", "data.on_error", "crf_settings.workers"}
    | {"token_cache", "token_cache_gib", "keep_tokens"}
)
"""Settings that do not make numbers others."""


def require_output(protocol: str, config: ProtocolConfig) -> None:
    """Refuse an output folder that cannot be written to, or that holds the numbers of other settings.

    Nothing is left there, neither a folder nor a file.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: another evaluation's `METRICS` is there, and ``overwrite`` is not set.
        FileNotFoundError, CheckpointError, ValueError: as `ProtocolConfig.given_head`.
    """
    folder = Path(config.output)
    settings = settings_of(config)  # with or without a file: whether a checkpoint can be read is seen here
    _refuse_unwritable(folder)
    path = folder / METRICS
    if config.overwrite or not path.exists():
        return
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        before = {"protocol": written["protocol"], **written["settings"]}
        now = json.loads(as_json({"protocol": protocol, **settings}))
        if "digests" not in before:  # as earlier versions left it
            del now["digests"]
        changed = changed_settings(before, now, FREE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say what it tells the numbers of: choose another --output, or --overwrite it"
        ) from error
    if changed:
        raise ValueError(
            f"{path} holds the numbers of other settings ({'; '.join(changed)}): choose another --output, or "
            "--overwrite it"
        )


def _refuse_unwritable(folder: Path) -> None:
    try:
        probe(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    except OSError as error:
        raise unwritable(folder, error) from error

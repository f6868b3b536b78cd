"""Checks of an evaluation's output folder before any work: writable, without results of other settings."""

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
"""Settings that do not change the results."""


def require_output(protocol: str, config: ProtocolConfig) -> None:
    """Check that the output folder can be written to and holds no results of other settings.

    The check leaves neither a folder nor a file there.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: the folder holds the `METRICS` of another evaluation, and ``overwrite`` is not set.
        FileNotFoundError, CheckpointError, ValueError: as `ProtocolConfig.given_head`.
    """
    folder = Path(config.output)
    settings = settings_of(config)  # always, since this finds out whether the checkpoint can be read
    _refuse_unwritable(folder)
    path = folder / METRICS
    if config.overwrite or not path.exists():
        return
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        before = {"protocol": written["protocol"], **written["settings"]}
        now = json.loads(as_json({"protocol": protocol, **settings}))
        if "digests" not in before:  # written by an earlier version
            del now["digests"]
        changed = changed_settings(before, now, FREE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not record the settings of its results: choose another --output, or replace it "
            "with --overwrite"
        ) from error
    if changed:
        raise ValueError(
            f"{path} holds the results of other settings ({'; '.join(changed)}): choose another --output, or "
            "replace it with --overwrite"
        )


def _refuse_unwritable(folder: Path) -> None:
    try:
        probe(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    except OSError as error:
        raise unwritable(folder, error) from error

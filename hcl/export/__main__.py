"""Export a trained model: ``hcl-export --checkpoint FILE``, or ``python -m hcl.export``; see ``--help``."""

import sys

from tqdm import tqdm

from hcl import __version__
from hcl.command_line import reported
from hcl.export.config import ExportConfig
from hcl.export.write import export
from hcl.settings_parser import SettingsParser

PROGRAM = "hcl-export"


def build_parser() -> SettingsParser:
    """The command line: the fields of `ExportConfig`."""
    parser = SettingsParser(
        prog=PROGRAM,
        version=__version__,
        description="Export a trained model as torch.export and ONNX programs, and its head in the format of "
        "Hugging Face's Hub. Each program is compared with the model.",
    )
    parser.add_settings(ExportConfig)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Export as the arguments say; return the exit status: 0 done, 2 bad input, 130 interrupted."""

    def run() -> int:
        parser = build_parser()
        config = ExportConfig(**vars(parser.instantiate(parser.parse_args(arguments))))
        for line in tqdm(export(config), "export", len(config.forms), unit="form", leave=False, disable=None):
            tqdm.write(line)
        return 0

    return reported(PROGRAM, run)


if __name__ == "__main__":
    sys.exit(main())

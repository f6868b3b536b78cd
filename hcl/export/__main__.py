"""Export a trained model: ``hcl-export --checkpoint FILE``, or ``python -m hcl.export``; ``--help`` helps."""

import sys

from hcl.command_line import preset_first, reported
from hcl.export.config import ExportConfig
from hcl.export.write import export
from hcl.settings_parser import SettingsParser

PROGRAM = "hcl-export"


def build_parser() -> SettingsParser:
    """The command line: the fields of `ExportConfig`."""
    parser = SettingsParser(
        prog=PROGRAM,
        description="Write a trained model as programs of torch.export and ONNX, and its head in the form of "
        "Hugging Face's Hub; each program is compared with the model.",
    )
    parser.add_settings(ExportConfig)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Export as the arguments say; returns the exit status: 0 done, 2 bad input, 130 interrupted."""

    def run() -> int:
        parser = build_parser()
        parsed = parser.parse_args(preset_first(sys.argv[1:] if arguments is None else arguments))
        settings = parser.instantiate(parsed)
        for line in export(ExportConfig(**vars(settings))):
            print(line, flush=True)
        return 0

    return reported(PROGRAM, run)


if __name__ == "__main__":
    sys.exit(main())

"""Score tokens on labelled images, or show them: ``python evaluate.py --help`` lists the subcommands."""

import sys

from hcl.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())

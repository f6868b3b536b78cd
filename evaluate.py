"""Score tokens on labelled images, or show what they are: ``python evaluate.py --help`` lists the ways."""

import sys

from hcl.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())

"""Train HCL: ``python train.py --config configs/quickstart.yaml``; ``--help`` lists every setting."""

import sys

from hcl.commands.train import main

if __name__ == "__main__":
    sys.exit(main())

"""Make a run: python train.py model=distilbert data=ifmos. The same as `doctune train …`."""

import sys

from doctune.training.app import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m gpu_patch``, the same as the command ``gpu-patch``."""

import sys

from gpu_patch.cli import main

if __name__ == "__main__":
    sys.exit(main())

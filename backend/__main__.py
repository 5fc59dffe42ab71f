"""`python -m backend` is `moe-cap worker`."""

import sys

from moe_cap.cli import main

sys.exit(main(["worker", *sys.argv[1:]]))

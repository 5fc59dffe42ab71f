"""`python -m moe_cap.cli` is `moe-cap`."""

import sys

from moe_cap.cli import main

sys.exit(main())

"""The leaderboard: `python app.py`, here and on a Space. The same as `moe-cap serve`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "src")]  # a Space installs no package

from moe_cap.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))

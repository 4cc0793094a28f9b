"""What the load tests share: servers, wrk, figures from /proc. Standard library only."""

from pathlib import Path

LOADTEST = Path(__file__).resolve().parent.parent
ROOT = LOADTEST.parent
EXAMPLES = ROOT / "examples"

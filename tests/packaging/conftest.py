"""Makes the package builder importable; it lives beside what it packs, not among the apps."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "packaging"))

"""`python -m tests.truth [--all]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from truth.replay import main

sys.exit(main())

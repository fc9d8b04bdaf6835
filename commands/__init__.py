"""What can be started, a file for each group of commands: options in, rooms wired together, no logic."""

from __future__ import annotations

import os

# A worker is one process for one core: further threads of BLAS would wait for each other in a busy loop. It reads this
# as numpy is imported, which some command here may do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

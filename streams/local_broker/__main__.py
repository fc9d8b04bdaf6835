"""``python -m streams.local_broker`` fetches and prepares what the local broker needs, before it is needed."""

from __future__ import annotations

import sys

from contract.errors import StoppressError
from streams.local_broker.install import prepare

try:
    prepare()
except StoppressError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)

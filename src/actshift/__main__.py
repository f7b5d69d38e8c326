"""`python -m actshift` is the `actshift` command."""

import sys

from actshift.cli import main

sys.exit(main())

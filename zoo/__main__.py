"""`python -m zoo COMMAND`."""

import sys

from zoo.cli import main

sys.exit(main())

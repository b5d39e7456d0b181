"""``python -m wenmai``: the command line, in whatever environment this Python has."""

import sys

from wenmai.cli import main

sys.exit(main())

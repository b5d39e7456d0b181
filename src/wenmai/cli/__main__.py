"""``python -m wenmai.cli``."""

import sys

from wenmai.cli import main

sys.exit(main())

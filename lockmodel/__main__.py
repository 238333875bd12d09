"""`python -m lockmodel`."""

import sys

from lockmodel.cli import main

sys.exit(main())

"""`python3 -m serving.deploy`."""

import sys

from serving.deploy.start import main

sys.exit(main())

"""`python -m federated`, `evenhand federated`: train what a configuration describes, the runs with federated.rounds
at clients that keep their texts. The recipe does both kinds of run, so that they can be compared in one study.
"""

import sys

from train_distill import main

if __name__ == "__main__":
    sys.exit(main())

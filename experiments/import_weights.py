"""Released weights as a checkpoint: `python experiments/import_weights.py model=leworldmodel hub=PLACE to=FOLDER`."""

import _path  # noqa: F401  isort: skip

from jepa_mpc.cli import script

if __name__ == "__main__":
    script("import_weights")

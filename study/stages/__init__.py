"""Stages of dvc.yaml: one thin module each, of the same name."""

import os

from study.parent import end_with_dvc

if os.environ.get("DVC_STAGE"):
    # From the first moment: imports take seconds, in which dvc may be killed.
    end_with_dvc()

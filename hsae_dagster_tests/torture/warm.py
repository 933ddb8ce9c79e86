"""Everything that a run imports, imported once: a child forked from a process that has this starts in no time.

Nothing is used yet, so no library has started a thread that a fork would lose.
"""

import warnings

import lancedb  # noqa: F401
import matplotlib  # noqa: F401
import openai  # noqa: F401
import sklearn.linear_model  # noqa: F401
import statsmodels.api  # noqa: F401
import torch  # noqa: F401

import hsae_dagster.definitions  # noqa: F401
from hsae_dagster_tests.assets import scripted, workspace  # noqa: F401

# This process never uses lancedb; its forks do, each for the first time.
warnings.filterwarnings("ignore", message="lancedb fork support")

"""The words that settings and command-line options share, apart from all that is heavy to import."""

from typing import Literal

PresetName = Literal["mnist", "rgbd", "digits", "sample"]
LabelEstimator = Literal["gumbel", "exact"]
Objective = Literal["bound", "classifier"]
Precision = Literal["fp32", "tf32", "bf16"]

RECOMMENDED = "best"  # not a preset of its own: our settings on top of the preset that fits the data

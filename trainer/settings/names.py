"""The words that settings and command-line options share, kept apart from everything slow to import."""

from typing import Literal

PresetName = Literal["mnist", "rgbd", "digits", "sample"]
LabelEstimator = Literal["gumbel", "exact"]
Objective = Literal["bound", "classifier"]
Precision = Literal["fp32", "tf32", "bf16"]

RECOMMENDED = "best"  # not a preset itself: the recommended settings on top of the preset that fits the data

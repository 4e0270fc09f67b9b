"""The training loop, its step and checkpoints, and the folder of a run."""

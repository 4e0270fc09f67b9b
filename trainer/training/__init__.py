"""The training loop, its step, its checkpoints and the folder of a run."""

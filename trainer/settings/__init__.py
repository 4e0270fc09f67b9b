"""Everything that determines a run's result, as one object; presets hold the paper's values and ours."""

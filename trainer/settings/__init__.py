"""What decides a run's result, as one object; the paper's values and ours as presets."""

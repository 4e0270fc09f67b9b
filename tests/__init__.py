"""The tests: by room in `pipeline/` and `trainer/`, commands and faults apart; what they share is in `support/`."""

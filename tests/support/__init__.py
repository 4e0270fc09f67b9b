"""What tests share: small data, tiny models, oracles, finished runs, processes to kill."""

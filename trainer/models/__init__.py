"""The models, one file each: factorisation, bound and card. No model imports another; the registry lists them."""

"""The models, one file each: factorisation, bound and card. They know of each other only through the registry."""

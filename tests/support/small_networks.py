"""Networks of a few units for the bundled digits, and how to pass them to a command."""

from collections.abc import Mapping

SSMVAE = {
    "q(y|X)": "(X-D16BR)-D16BR, DK",
    "q(z|X,y)": "(y, X-D16BR)-D16BR, D4",
    "p(x|z,y)": "(z, y)-D16BR, Dx",
}
SSHMVAE_KL = {
    "q(a|X)": "(X-D32BR)-D32BR, D8",
    "q(a|x)": "x-D32BR, D8",
    "q(y|a)": "a-D32BR, DK",
    "q(z|a,y)": "(a, y)-D32BR, D4",
    "p(a|z,y)": "(z, y)-D32BR, D8",
    "p(x|a)": "a-D32BR, Dx",
}
SDGM = {
    "q(a|X)": "X-D8BR, D4",
    "q(y|X,a)": "(X, a)-D8BR, DK",
    "q(z|X,y,a)": "(X, y, a)-D8BR, D3",
    "p(a|z,y)": "(z, y)-D8BR, D4",
    "p(x|a,y,z)": "(a, y, z)-D8BR, Dx",
}


def as_toml(networks: Mapping[str, str]) -> str:
    """A settings file's table, for `--config`."""
    return "[networks]\n" + "".join(f'"{name}" = "{notation}"\n' for name, notation in networks.items())


def as_assignment(networks: Mapping[str, str]) -> str:
    """One assignment, for `--set`."""
    return "networks={" + ", ".join(f'"{name}" = "{notation}"' for name, notation in networks.items()) + "}"

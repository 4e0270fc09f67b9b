"""The lowest versions that pyproject.toml allows, as constraints for pip: python -m scripts.lowest [EXTRA...]

Each `name>=version` becomes `name==version`, for the dependencies and for those of the extras that are named. Such an
environment runs the fast tests (`make test-lowest`), so that the lower bounds are promises that somebody has tried.
"""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main() -> int:
    print("\n".join(constraints(PYPROJECT.read_text(encoding="utf-8"), sys.argv[1:])))
    return 0


def constraints(pyproject: str, extras: Sequence[str] = ()) -> list[str]:
    """One line per package.

    Raises:
        ValueError: a requirement has no lower bound, or several.
        KeyError: there is no such extra.
    """
    project = tomllib.loads(pyproject)["project"]
    optional = project.get("optional-dependencies", {})
    lowest = {}
    for text in [*project["dependencies"], *(text for extra in extras for text in optional[extra])]:
        requirement = Requirement(text)
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{text}: has {len(bounds)} lower bounds, and needs one")
        lowest[requirement.name] = f"{requirement.name}=={bounds[0]}"
    return sorted(lowest.values())


if __name__ == "__main__":
    sys.exit(main())

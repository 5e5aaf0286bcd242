#!/usr/bin/env bash
# Builds the images and tries them: docker/try-images.sh [cpu|cuda12|cuda13 ...], default all.
#
# With docker or podman where one runs, otherwise with buildah, without a daemon and without
# namespaces, on a Debian that debootstrap makes (as root; apt-get install buildah debootstrap).
# BASE names another base image, ARCHITECTURES the compute capabilities to compile for ("90").
# pip's settings and certificates of this machine serve the builds and stay out of the images.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A most=([cpu]=350 [cuda12]=1600 [cuda13]=1600) # MB over the base
targets=("${@:-cpu}")
(($#)) || targets=(cpu cuda12 cuda13)
for target in "${targets[@]}"; do
    [[ -v most[$target] ]] || { echo "no target $target: cpu, cuda12 or cuda13" >&2; exit 2; }
done

export BUILDAH_FORMAT=docker # of podman and buildah: the other one has no health check
work=$(mktemp -d)
engine=
for candidate in docker podman; do
    if "$candidate" info > "$work/info" 2>&1 && ! grep -q 'Cannot connect' "$work/info"; then
        engine=$candidate
        break
    fi
done

say() { printf '\n== %s\n' "$*"; }
fail() { echo "try-images.sh: $*" >&2; exit 1; }

# ---- what the engines do differently -------------------------------------------------------------

if [[ $engine ]]; then
    base=${BASE:-python:3.12-slim}
    data=gpu_patch_try_$$
    clean() {
        "$engine" volume rm "$data" > /dev/null || true
        rm -rf "$work"
    }
    build() { DOCKER_BUILDKIT=1 "$engine" build "$@"; }
    # run IMAGE COMMAND...: without a GPU, and nothing but /tmp and volumes can be written; `as` may
    # name another user
    run() {
        local image=$1 command=$2
        shift 2
        "$engine" run --rm --read-only --tmpfs /tmp --volume "$data:/data" --network none \
            ${as:+--user "$as"} --env NVIDIA_VISIBLE_DEVICES=void --entrypoint "$command" "$image" "$@"
    }
    megabytes() { echo $(($("$engine" image inspect --format '{{.Size}}' "$1") / 1000000)); }
    prepare() {
        "$engine" image inspect "$base" > /dev/null 2>&1 || "$engine" pull --quiet "$base"
        "$engine" volume create "$data" > /dev/null
    }
else
    engine=buildah
    base=${BASE:-localhost/gpu_patch_base}
    data=$work/data
    mkdir --mode 1777 "$data"
    export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs BUILDAH_LAYERS=true
    in_storage() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
    clean() {
        in_storage rm --all > /dev/null 2>&1 || true
        rm -rf --one-file-system "$work"
    }
    build() { in_storage build "$@"; }
    # run IMAGE COMMAND...: the root is checked afterwards for what a read-only one would not take
    run() {
        local image=$1 container root status=0 written
        shift
        container=$(in_storage from --pull-never "$image")
        root=$(in_storage mount "$container")
        touch "$work/before"
        in_storage run --network none --volume "$data:/data" ${as:+--user "$as"} "$container" \
            -- "$@" || status=$?
        written=$(find "$root" -xdev -newer "$work/before" -type f \
            -not -path "$root/tmp/*" -not -path "$root/var/cache/gpu_patch/*")
        in_storage rm "$container" > /dev/null
        [[ -z $written ]] || fail "written outside of /tmp and volumes: $written"
        return "$status"
    }
    megabytes() {
        local container
        container=$(in_storage from --pull-never "$1")
        du -sx --block-size=1000000 "$(in_storage mount "$container")" | cut -f1
        in_storage rm "$container" > /dev/null
    }
    prepare() {
        local container
        [[ ! ${BASE-} ]] || return 0
        say "a Debian with Python as the base image"
        debootstrap --variant=minbase --include=python3-venv bookworm "$work/debian" > "$work/log" \
            || fail "debootstrap: $(tail -n 5 "$work/log")"
        container=$(in_storage from scratch)
        in_storage add --quiet "$container" "$work/debian" /
        in_storage commit --quiet "$container" "$base"
        in_storage rm "$container" > /dev/null
        rm -rf --one-file-system "$work/debian"
    }
fi
trap clean EXIT
prepare

# ---- this machine's way to packages --------------------------------------------------------------

setting() { python3 -m pip config get "global.$1" 2> "$work/log" || python3 -m pip config get ":env:.$1"; }

secrets=(--secret "id=pip,src=$work/pip.conf")
echo "[global]" > "$work/pip.conf"
for key in index-url proxy timeout; do
    if value=$(setting "$key" 2> "$work/log"); then
        echo "$key = $value" >> "$work/pip.conf"
    fi
done
if certificates=$(setting cert 2> "$work/log"); then
    echo "cert = /run/secrets/certificates" >> "$work/pip.conf"
    secrets+=(--secret "id=certificates,src=$certificates")
fi

# ---- build and try -------------------------------------------------------------------------------

make_image() {
    say "build $1 with $engine on $base"
    build --file docker/Dockerfile --target "$1" --tag "localhost/gpu_patch:$1" \
        --build-arg "BASE=$base" --build-arg "ARCHITECTURES=${ARCHITECTURES-}" \
        --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' gpu_patch/__init__.py)" \
        --build-arg "REVISION=$(git rev-parse HEAD 2> "$work/log" || echo unknown)" \
        "${secrets[@]}" .
}

try_any() {
    local user
    user=$(run "$1" id -u)
    ((user > 0)) || fail "$1 runs as root"
    say "info in $1"
    run "$1" gpu-patch info | tee "$work/info"
    as=4242:4242 run "$1" gpu-patch info > "$work/info_as_another"
    diff "$work/info" "$work/info_as_another" || fail "$1 is another one for another user"
    grep -q '^CPU        compiled kernels for ' "$work/info" || fail "$1 has no compiled CPU kernels"
}

try_cpu() {
    try_any "$1"
    run "$1" gpu-patch info --check || fail "info --check finds fault with $1"
    say "demo in $1"
    time run "$1" gpu-patch demo --out /data/demo
    run "$1" test -s /data/demo/preview.png || fail "the demo left no picture"
    as=4242:4242 run "$1" gpu-patch demo --out /data/demo_of_another > "$work/log" 2>&1 \
        || fail "another user has no demo: $(cat "$work/log")"
    make_image test
    say "the tests in $1"
    run localhost/gpu_patch:test python -m pytest -p no:cacheprovider --pyargs tests gpu_patch
}

try_cuda() {
    try_any "$1"
    if run "$1" gpu-patch info --check > "$work/check" 2>&1; then
        fail "info --check finds no fault, but $1 has no GPU: $(cat "$work/check")"
    fi
    cat "$work/check"
    grep -q '^kernels .*, writable$' "$work/info" || fail "$1 cannot keep kernels"
    grep -q -e '--gpus' "$work/check" || fail "info --check does not tell how to run with a GPU"
    grep -q ' [1-9][0-9]* compiled ahead' "$work/info" || fail "$1 has no kernels compiled ahead"
}

base_size=$(megabytes "$base")
sizes=()
for target in "${targets[@]}"; do
    image=localhost/gpu_patch:$target
    make_image "$target"
    size=$(($(megabytes "$image") - base_size))
    sizes+=("$target: $size MB over its base of $base_size MB, at most ${most[$target]}")
    ((size <= most[$target])) || fail "${sizes[-1]}"
    case $target in
        cpu) try_cpu "$image" ;;
        *) try_cuda "$image" ;;
    esac
done
say "sizes"
printf '%s\n' "${sizes[@]}"

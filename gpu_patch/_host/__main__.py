"""``python -m gpu_patch._host``: compile the CPU's kernels, where they were not."""

from gpu_patch._host.build import HERE, build_with_any

if __name__ == "__main__":
    paths, text = build_with_any(HERE)
    if not paths:
        raise SystemExit(f"no compiled CPU kernels, NumPy computes instead: {text}")
    print(*(f"{text}: {path}" for path in paths), sep="\n")

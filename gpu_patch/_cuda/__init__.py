"""The operations in CUDA: kernels in `*.cu`, and the NumPy-only code that launches them.

Nothing here imports CuPy before a `CupyRuntime` is made.
"""

"""The operations compiled for the CPU: C++ kernels, and the NumPy-only code that calls them.

Where there is no library for this processor, NumPy computes: `library` says why.
"""

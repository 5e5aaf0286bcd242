"""The operations in NumPy: the CPU backend, and the reference for every other one."""

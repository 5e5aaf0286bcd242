"""The kernels as NVRTC compiles them, run on the CPU: PTX is decoded here and run by engine/.

Whole grids, 32 lanes at a time, which part at branches and meet again at immediate
post-dominators. Every access is checked: bounds, alignment, memory that nobody has written, races
on shared memory between barriers (within a warp too), barriers that not all threads reach,
read-only loads of what the launch writes. Instructions, sectors and bank conflicts are counted.

Counts are of PTX: ptxas folds about a sixth of it (widening of loads, constants, moves). There are
no caches, no timing, no local memory, atomics, shuffles or votes, nor approximate or saturating
arithmetic; what is not there raises NotImplementedError when a kernel is decoded.
"""

"""Arrays on the host and on a device: NumPy or CuPy, parameters in one buffer, fused formulas, threads and MPI ranks."""

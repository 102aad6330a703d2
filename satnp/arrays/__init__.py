"""Where numbers live and how they are moved: NumPy or CuPy, parameters in one buffer, fused formulas, threads and ranks."""

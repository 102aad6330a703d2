"""The proofs: gradient checks and their machinery, planted bugs, enumeration of all paths, and the laboratory."""

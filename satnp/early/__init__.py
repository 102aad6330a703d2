"""Systems without a neural decoder of their own: retrieval, templates, detectors, ranking. One file for each paper."""

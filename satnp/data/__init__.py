"""Captions, vocabulary, splits, batches of one length, rendered scenes, and features kept on disk."""

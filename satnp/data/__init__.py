"""Captions, vocabulary, splits, batches of one length, rendered scenes and clips, and features kept on disk."""

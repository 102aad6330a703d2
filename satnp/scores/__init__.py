"""Scores of captions: coco-caption's metrics, and the evaluation of a model on a split."""

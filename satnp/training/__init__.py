"""One trainer for all captioners, its optimisers, its recipes, and the warnings that it prints."""

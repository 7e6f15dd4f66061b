"""Gingham behind the frameworks of retrieval-augmented generation; each module imports its framework, this one none."""

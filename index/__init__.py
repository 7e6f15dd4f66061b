"""Indexes: vectors in, (scores, offsets) out; a greater score is better for every metric."""

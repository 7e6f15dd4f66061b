"""Codecs: arrays in, codes out; and the room of the jit settings."""

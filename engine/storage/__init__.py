"""Storage: the LMDB file and everything in it."""

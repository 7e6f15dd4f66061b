"""Generated messages and stubs of the package gingham.v1; ``make proto`` writes them."""

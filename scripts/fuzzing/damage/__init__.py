"""How inputs are damaged: a module for each kind, of functions (random numbers, path) -> what was done, in words."""

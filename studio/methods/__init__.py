"""How it is optimised: one paper a file, each a generator over pure kernels."""

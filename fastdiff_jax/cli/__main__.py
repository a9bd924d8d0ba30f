"""`python -m fastdiff_jax.cli`."""

from . import main

main()

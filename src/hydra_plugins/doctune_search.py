"""Where Hydra looks for plugins: it instantiates no sweeper from outside this namespace, which has no __init__.py."""

from doctune.training import search


class OptunaSweeper(search.OptunaSweeper):
    """The sweeper of `sweep=optuna`; all of it is in `doctune.training.search`."""

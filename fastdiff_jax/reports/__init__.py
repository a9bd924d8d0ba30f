"""Reports: figures of plans and of results. Reads them, runs nothing."""

from . import plots as plots

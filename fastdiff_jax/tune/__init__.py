"""Tuning: whatever runs a network to choose a plan's numbers.

`ems` estimates DPM-Solver-v3's statistics, `dc_ratios` searches DC-Solver's ratios. The
room knows everything but reports and the command line.
"""

from . import dc_ratios as dc_ratios
from . import ems as ems

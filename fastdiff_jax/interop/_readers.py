"""Grid and method of every scheduler class: the one table of readers."""

from collections.abc import Callable
from typing import Any, NamedTuple

from . import _backwards, _few, _maxdiffusion, grids, schedulers
from ._brownian import dpm_sde
from ._classes import base
from ._pndm import pndm
from .grids import Grid
from .schedulers import Built

__all__ = ["Reader", "reader"]

Settings = dict[str, Any]


class Reader(NamedTuple):
    """How a class is read.

    Attributes:
        grid: (name, settings, steps, options) -> levels and labels.
        build: (settings, grid, options) -> (plan, label of each row).
    """

    grid: Callable[[str, Settings, int, Settings], Grid]
    build: Callable[[Settings, Grid, Settings], Built]


READERS = {
    "DDIMScheduler": Reader(grids.diffusion, schedulers.ddim),
    "DDPMScheduler": Reader(grids.diffusion, schedulers.ddpm),
    "PNDMScheduler": Reader(grids.diffusion, pndm),
    "DPMSolverMultistepScheduler": Reader(
        grids.multistep, schedulers.dpm("DPMSolverMultistepScheduler")
    ),
    "DPMSolverSinglestepScheduler": Reader(grids.multistep, schedulers.singlestep),
    "DEISMultistepScheduler": Reader(grids.multistep, schedulers.deis),
    "UniPCMultistepScheduler": Reader(grids.unipc, schedulers.unipc),
    "SASolverScheduler": Reader(grids.multistep, schedulers.sa),
    "EulerDiscreteScheduler": Reader(grids.exploding, schedulers.euler),
    "EulerAncestralDiscreteScheduler": Reader(
        grids.exploding, schedulers.euler_ancestral
    ),
    "HeunDiscreteScheduler": Reader(grids.exploding, schedulers.heun),
    "LMSDiscreteScheduler": Reader(grids.exploding, schedulers.lms),
    "KDPM2DiscreteScheduler": Reader(grids.exploding, schedulers.kdpm2),
    "KDPM2AncestralDiscreteScheduler": Reader(
        grids.exploding, schedulers.kdpm2_ancestral
    ),
    "DPMSolverSDEScheduler": Reader(grids.exploding, dpm_sde),
    "IPNDMScheduler": Reader(grids.sine, schedulers.ipndm),
    "FlowMatchEulerDiscreteScheduler": Reader(grids.flow, schedulers.flow_euler),
    "FlowMatchHeunDiscreteScheduler": Reader(grids.flow, schedulers.flow_heun),
    "EDMEulerScheduler": Reader(grids.karras, schedulers.euler),
    "EDMDPMSolverMultistepScheduler": Reader(
        grids.karras, schedulers.dpm("EDMDPMSolverMultistepScheduler")
    ),
    "CosineDPMSolverMultistepScheduler": Reader(
        grids.karras, schedulers.dpm("CosineDPMSolverMultistepScheduler")
    ),
    "LCMScheduler": Reader(_few.few, _few.lcm),
    "TCDScheduler": Reader(_few.few, _few.tcd),
    "CogVideoXDDIMScheduler": Reader(grids.diffusion, schedulers.cogvideox_ddim),
    "CogVideoXDPMScheduler": Reader(grids.diffusion, schedulers.cogvideox_dpm),
    "DDIMInverseScheduler": Reader(_backwards.inverse_grid, _backwards.ddim_inverse),
    "DPMSolverMultistepInverseScheduler": Reader(
        _backwards.dpm_inverse, schedulers.dpm("DPMSolverMultistepInverseScheduler")
    ),
    "FlaxEulerDiscreteScheduler": Reader(grids.from_the_top, schedulers.euler),
    "FlaxFlowMatchScheduler": Reader(_maxdiffusion.flow_match, schedulers.euler),
    "FlaxRectifiedFlowMultistepScheduler": Reader(
        _maxdiffusion.rectified_flow, schedulers.euler
    ),
}


def reader(name: str) -> Reader:
    """How a class is read: its own line, or that of the class it is like."""
    return READERS[name if name in READERS else base(name)]

"""Sampling as a policy: log-probabilities of the rows of a stochastic plan.

The room knows the engine's rows as Gaussian kernels; training loops are the user's.
"""

from .log_prob import Rollout as Rollout
from .log_prob import log_prob as log_prob
from .log_prob import noise_of as noise_of
from .log_prob import ppo_loss as ppo_loss
from .log_prob import ratio as ratio
from .log_prob import rollout as rollout
from .paths import Path as Path
from .windows import flow_grpo_tau2 as flow_grpo_tau2
from .windows import window as window
from .windows import window_at as window_at

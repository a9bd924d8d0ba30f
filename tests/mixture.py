"""The two-mode mixture every order test uses, and its exact solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import fastdiff_jax as fd

WEIGHTS = np.array([0.4, 0.6])
MEANS = np.array([-1.0, 1.2])
VARIANCES = np.array([0.2, 0.3])
LOW, HIGH = -3.0, 3.0  # bounded half log-SNR, as the order statements ask for
PROCESSES = {
    "vp": fd.processes.vp_linear(),
    "edm": fd.processes.edm(),
    "flow": fd.processes.flow(),
}
MODEL = fd.models.gaussian_mixture(WEIGHTS, MEANS[:, None], VARIANCES[:, None])


def predict(x, alpha, sigma):
    """E[x_0 | x] in NumPy, for scalars x."""
    total = alpha**2 * VARIANCES + sigma**2
    gap = x[..., None] - alpha * MEANS
    logit = np.log(WEIGHTS) - np.log(total) / 2 - gap**2 / total / 2
    r = np.exp(logit - logit.max(-1, keepdims=True))
    r /= r.sum(-1, keepdims=True)
    return (r * (MEANS + alpha * VARIANCES * gap / total)).sum(-1)


def times_between(process, steps, power=1.0):
    """Times whose half log-SNR goes from LOW to HIGH; power > 1 shrinks early steps."""
    ramp = np.linspace(0, 1, steps + 1) ** power
    ts = process.half_log_snr_inverse(LOW + ramp * (HIGH - LOW))
    return ts


@functools.cache
def problem(name):
    """(process, start (41, 1), exact end (41, 1)) on a path."""
    process = PROCESSES[name]
    first, last = (float(process.half_log_snr_inverse(v)) for v in (LOW, HIGH))
    a0, s0 = float(process.alpha(first)), float(process.sigma(first))
    a1, s1 = float(process.alpha(last)), float(process.sigma(last))
    scale = np.hypot(a0, s0)
    x = np.linspace(-2.5, 2.5, 41) * scale

    def slope(lam, y):  # y = x / sigma on the variance-exploding clock: dy/dl = D e^l
        sigma = np.exp(-lam)
        return predict(y * sigma, 1.0, sigma) * np.exp(lam)

    y0 = x / a0 / np.exp(-LOW)
    found = solve_ivp(slope, (LOW, HIGH), y0, method="DOP853", rtol=1e-13, atol=1e-13)
    end = found.y[:, -1] * np.exp(-HIGH) * a1
    del s0, s1
    return process, x[:, None], end[:, None]


@jax.jit
def run(plan, x):
    return fd.sample(plan, MODEL, x)


def errors(build, name, counts, power=1.0):
    """RMS error at the end for each number of steps, one compiled program."""
    process, x, end = problem(name)
    out = []
    for n in counts:
        plan = build(process, times_between(process, n, power))
        y = np.asarray(run(plan, jnp.asarray(x)))
        out.append(float(np.sqrt(np.mean((y - end) ** 2))))
    return np.array(out)


def slope(build, name, power=1.0, counts=(40, 80)):
    """Observed order between two step counts."""
    e = errors(build, name, counts, power)
    return float(np.log2(e[0] / e[1]) / np.log2(counts[1] / counts[0]))

"""Score-SDE's predictors, correctors and inpainting as loops, from the paper.

`predict(x, t)` is E[x_0 | x_t = x]; `z` holds one draw per update, in order. Everything
is written in the score, from the forward chain x_s = a x_t + g z.
"""

import math

import numpy as np


def level(process, t):
    return float(process.alpha(t)), float(process.sigma(t))


def score(process, predict, x, t):
    alpha, sigma = level(process, t)
    return (alpha * predict(x, t) - x) / sigma**2


def reverse_diffusion_step(process, predict, x, s, t, z, tau2=1.0):
    (a_s, v_s), (a_t, v_t) = level(process, s), level(process, t)
    if v_t == 0:
        return a_t * predict(x, s)
    root = a_s / a_t  # sqrt(1 - beta)
    g2 = v_s**2 - root**2 * v_t**2
    drift = (root - 1) * x - (1 + tau2) / 2 * g2 * score(process, predict, x, s)
    return x - drift + math.sqrt(tau2 * g2) * z


def vp_ancestral_step(process, predict, x, s, t, z):
    """(x + beta S) / sqrt(1 - beta) + sqrt(beta) z."""
    beta = 1 - (level(process, s)[0] / level(process, t)[0]) ** 2
    mean = (x + beta * score(process, predict, x, s)) / math.sqrt(1 - beta)
    return mean + math.sqrt(beta) * z


def ve_ancestral_step(process, predict, x, s, t, z):
    high, low = level(process, s)[1], level(process, t)[1]
    mean = x + (high**2 - low**2) * score(process, predict, x, s)
    return mean + math.sqrt(low**2 * (high**2 - low**2) / high**2) * z


def euler_maruyama_step(process, predict, x, s, t, z, tau2=1.0):
    a, v = level(process, s)
    d_a, d_v = (float(r) for r in process.rates(s))
    dt, g2 = s - t, 2 * v * d_v - 2 * v**2 * d_a / a
    slope = d_a / a * x - (1 + tau2) / 2 * g2 * score(process, predict, x, s)
    return x - dt * slope + math.sqrt(tau2 * g2 * dt) * z


def run(step, process, ts, predict, x, z, denoise=True, **options):
    """Every step; the last one's mean only, if `denoise`."""
    for i in range(len(ts) - 1):
        last = denoise and i == len(ts) - 2
        draw = np.zeros_like(z[i]) if last else z[i]
        x = step(process, predict, x, ts[i], ts[i + 1], draw, **options)
    return x


def ald_step(process, predict, x, s, t, z, snr):
    """The corrector at level s; t is where the next predictor goes."""
    alpha = (level(process, s)[0] / level(process, t)[0]) ** 2
    eps = 2 * alpha * (snr * level(process, s)[1]) ** 2
    return x + eps * score(process, predict, x, s) + math.sqrt(2 * eps) * z


def langevin_step(process, predict, x, s, t, z, snr, per_sample):
    """x is (B, ...): the step size by norms, of each sample or batch means of them."""
    alpha = (level(process, s)[0] / level(process, t)[0]) ** 2
    slope = score(process, predict, x, s)
    flat = lambda v: np.linalg.norm(v.reshape(len(v), -1), axis=1)  # noqa: E731
    drawn, size = flat(z), flat(slope)
    if not per_sample:
        drawn, size = drawn.mean(), size.mean()
    eps = 2 * alpha * (snr * drawn / size) ** 2
    eps = np.reshape(eps, (-1,) + (1,) * (x.ndim - 1))
    return x + eps * slope + np.sqrt(2 * eps) * z


def predictor_corrector(
    process, ts, predict, x, z, step, correct, corrections, denoise=True
):
    """M corrections, then the predictor, at each level; draws in that order."""
    draws = iter(z)
    for i in range(len(ts) - 1):
        s, t = ts[i], ts[i + 1]
        for _ in range(corrections):
            x = correct(process, predict, x, s, t, next(draws))
        draw = next(draws)
        if denoise and i == len(ts) - 2:
            draw = np.zeros_like(draw)
        x = step(process, predict, x, s, t, draw)
    return x


def colour_basis():
    """M orthonormal with first column (1, 1, 1) / sqrt 3."""
    m = np.linalg.qr(np.array([[1.0, 1, 0], [1, -1, 1], [1, 0, -1]]))[0]
    return m * np.sign(m[0, 0])


def colour_step(x, grey, alpha, sigma, z):
    """Replace channel 0 of x M; z is (..., 1)."""
    m = colour_basis()
    u = x @ m
    known = (np.concatenate([grey] * 3, axis=-1) @ m)[..., :1]
    u[..., :1] = alpha * known + sigma * z
    return u @ m.T

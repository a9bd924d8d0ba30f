"""Interpolant steps one at a time, integrals by adaptive quadrature."""

import numpy as np
from scipy.integrate import quad


def turned(process, eps, s, t):
    """|int eps / gamma^2| from s to t."""
    rate = lambda u: eps(u) / float(process.sigma(u)) ** 2  # noqa: E731
    return abs(quad(rate, s, t, epsabs=1e-13, epsrel=1e-13)[0])


def propagator(process, eps, u, t):
    """r(u -> t): what is left at t of a gap at u from the mean of the bridge."""
    scale = float(process.sigma(t)) / float(process.sigma(u))
    return scale * np.exp(-turned(process, eps, u, t))


def bridge(process, ts, eps, denoiser, x, zs, order=1):
    """x_{i+1} = r x + int d[r a] D_0 + int d[r b] D_1 + noise, gamma > 0 throughout.

    D linear through the last two evaluations for order 2; the integrals of the slope
    by differences of r a at the end and quadrature of (r a) over the step.
    """
    past = []
    for i in range(len(ts) - 1):
        s, t = ts[i], ts[i + 1]
        past.append(denoiser(x, s))
        r = propagator(process, eps, s, t)
        new = r * x
        for k, scale in enumerate((process.alpha, process.beta)):
            now = past[-1][k]
            new = new + (float(scale(t)) - r * float(scale(s))) * now
            if order == 2 and i > 0:
                slope = (now - past[-2][k]) / (s - ts[i - 1])
                # int (u - s) d[r a] = (t - s) a_t - int r a du
                area = quad(
                    lambda u, f=scale, t=t: (
                        propagator(process, eps, u, t) * float(f(u))
                    ),
                    s,
                    t,
                    epsabs=1e-12,
                    epsrel=1e-12,
                )[0]
                new = new + slope * ((t - s) * float(scale(t)) - area)
        spread = 1 - np.exp(-2 * turned(process, eps, s, t))
        x = new + float(process.sigma(t)) * np.sqrt(spread) * zs[i]
    return x

"""ER-SDE as a loop in y = x / alpha: divided differences and adaptive quadrature."""

import numpy as np
from scipy.integrate import quad


def er_sde(process, ts, predict, x, z, phi, order=3, compat=False):
    """`phi` a scalar function; `z` holds one value per step."""
    alpha, sigma = process.alpha(ts), process.sigma(ts)
    rho = sigma / alpha
    y, found, slopes = x / alpha[0], [], []
    for i in range(len(ts) - 1):
        s, t = rho[i], rho[i + 1]
        found.append(predict(alpha[i] * y, ts[i]))
        if i:
            slopes.append((found[i] - found[i - 1]) / (s - rho[i - 1]))
        r = phi(t) / phi(s)
        new = r * y + (1 - r) * found[i]

        def integral(f, s=s, t=t):
            return quad(f, t, s, epsabs=1e-15, epsrel=1e-13, limit=200)[0]

        if order > 1 and i > 0:
            slope = slopes[-1]
            if order > 2 and i > 1:
                curve = 2 * (slopes[-1] - slopes[-2]) / (s - rho[i - 2])
                if not compat:  # Newton's form of the slope at s
                    slope = slope + (s - rho[i - 1]) * curve / 2
                second = integral(lambda u, s=s: (u - s) / phi(u))
                new = new + ((t - s) ** 2 / 2 + phi(t) * second) * curve
            new = new + (t - s + phi(t) * integral(lambda u: 1 / phi(u))) * slope
        y = new + np.sqrt(max(t**2 - r**2 * s**2, 0.0)) * z[i]
    return alpha[-1] * y

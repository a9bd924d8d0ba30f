"""rhoRK-DEIS and DPM-2 as loops over u = x / alpha, du / d rho = E.

Each rule is written out in its textbook form; f(u, rho) is the noise prediction.
"""

import numpy as np


def euler(f, u, r, d):
    return u + d * f(u, r)


def heun2(f, u, r, d):
    k1 = f(u, r)
    k2 = f(u + d * k1, r + d)
    return u + d * (k1 + k2) / 2


def kutta3(f, u, r, d):
    k1 = f(u, r)
    k2 = f(u + d * k1 / 2, r + d / 2)
    k3 = f(u - d * k1 + 2 * d * k2, r + d)
    return u + d * (k1 + 4 * k2 + k3) / 6


def ralston3(f, u, r, d):
    k1 = f(u, r)
    k2 = f(u + d * k1 / 2, r + d / 2)
    k3 = f(u + 3 * d * k2 / 4, r + 3 * d / 4)
    return u + d * (2 * k1 + 3 * k2 + 4 * k3) / 9


def heun3(f, u, r, d):
    k1 = f(u, r)
    k2 = f(u + d * k1 / 3, r + d / 3)
    k3 = f(u + 2 * d * k2 / 3, r + 2 * d / 3)
    return u + d * (k1 + 3 * k3) / 4


def van_der_houwen3(f, u, r, d):
    k1 = f(u, r)
    k2 = f(u + 8 * d * k1 / 15, r + 8 * d / 15)
    k3 = f(u + d * k1 / 4 + 5 * d * k2 / 12, r + 2 * d / 3)
    return u + d * (k1 + 3 * k3) / 4


def ssprk3(f, u, r, d):
    """Shu and Osher's form: averages of Euler steps."""
    one = u + d * f(u, r)
    two = 3 * u / 4 + (one + d * f(one, r + d)) / 4
    return u / 3 + 2 * (two + d * f(two, r + d / 2)) / 3


def rk4(f, u, r, d):
    k1 = f(u, r)
    k2 = f(u + d * k1 / 2, r + d / 2)
    k3 = f(u + d * k2 / 2, r + d / 2)
    k4 = f(u + d * k3, r + d)
    return u + d * (k1 + 2 * k2 + 2 * k3 + k4) / 6


RULES = {
    rule.__name__: rule
    for rule in (
        euler,
        heun2,
        kutta3,
        ralston3,
        heun3,
        van_der_houwen3,
        ssprk3,
        rk4,
    )
}


def _noise(process, predict):
    """f(u, rho) of a data prediction (x, t) -> D, by way of the process' clock."""

    def f(u, rho):
        t = process.half_log_snr_inverse(-np.log(rho))
        alpha, sigma = process.alpha(t), process.sigma(t)
        return (alpha * u - alpha * predict(alpha * u, t)) / sigma

    return f


def rho_rk(process, ts, predict, x, method):
    f = _noise(process, predict)
    alpha, sigma = process.alpha(ts), process.sigma(ts)
    u = x / alpha[0]
    for i in range(len(ts) - 1):
        r, d = sigma[i] / alpha[i], sigma[i + 1] / alpha[i + 1] - sigma[i] / alpha[i]
        rule = euler if sigma[i + 1] == 0 else RULES[method]
        u = rule(f, u, r, d)
    return alpha[-1] * u


def dpm2(process, ts, predict, x, r=0.5, afs=False):
    f = _noise(process, predict)
    alpha, sigma = process.alpha(ts), process.sigma(ts)
    u = x / alpha[0]
    for i in range(len(ts) - 1):
        now, then = sigma[i] / alpha[i], sigma[i + 1] / alpha[i + 1]
        first = f(u, now)
        if afs and i == 0:
            first = x / np.sqrt(alpha[0] ** 2 + sigma[0] ** 2)
        if then == 0:
            u = u - now * first
            continue
        mid = now ** (1 - r) * then**r
        second = f(u + (mid - now) * first, mid)
        u = u + (then - now) * (second / (2 * r) + (1 - 1 / (2 * r)) * first)
    return alpha[-1] * u

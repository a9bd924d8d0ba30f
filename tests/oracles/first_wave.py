"""Naive loops of the first solvers, written from the papers, one step at a time.

Each takes (process, ts, predict_data, x) with NumPy arrays and knows nothing of plans.
"""

import warnings

import numpy as np
from scipy import integrate


def quad(f, low, high, **options):
    """Adaptive quadrature at the limit of float64, where scipy warns of roundoff."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", integrate.IntegrationWarning)
        return integrate.quad(f, low, high, **options)


def _levels(process, ts):
    with np.errstate(divide="ignore"):
        return process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)


def _noise(x, d, alpha, sigma):
    return (x - alpha * d) / sigma


def ddim(process, ts, predict, x, eta=0.0, z=None):
    a, s, _ = _levels(process, ts)
    for i in range(len(ts) - 1):
        d = predict(x, ts[i])
        e = _noise(x, d, a[i], s[i])
        c = 0.0
        if eta:
            c = eta * s[i + 1] * np.sqrt(1 - (a[i] * s[i + 1] / a[i + 1] / s[i]) ** 2)
        x = a[i + 1] * d + np.sqrt(s[i + 1] ** 2 - c**2) * e
        x = x + (c * z[i] if eta else 0.0)
    return x


def _velocity(process, x, d, t):
    a, s = process.alpha(t), process.sigma(t)
    da, ds = process.rates(t)
    return da * d + ds * (x - a * d) / s


def euler(process, ts, predict, x):
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        x = x + (t_next - t) * _velocity(process, x, predict(x, t), t)
    return x


def heun(process, ts, predict, x):
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        v = _velocity(process, x, predict(x, t), t)
        y = x + (t_next - t) * v
        if process.sigma(t_next) > 0:
            w = _velocity(process, y, predict(y, t_next), t_next)
            y = x + (t_next - t) * (v + w) / 2
        x = y
    return x


def edm_heun(process, ts, predict, x):
    a, s, _ = _levels(process, ts)
    u, rho = x / a[0], s / a
    for i in range(len(ts) - 1):
        e = _noise(a[i] * u, predict(a[i] * u, ts[i]), a[i], s[i])
        y = u + (rho[i + 1] - rho[i]) * e
        if s[i + 1] > 0:
            b = i + 1
            f = _noise(a[b] * y, predict(a[b] * y, ts[b]), a[b], s[b])
            y = u + (rho[b] - rho[i]) * (e + f) / 2
        u = y
    return a[-1] * u


def dpmpp_2m(process, ts, predict, x, exact=False, lower=False):
    """Algorithm 2 of 2211.01095, D = (1 + 1/2r) x_i - (1/2r) x_{i-1}."""
    a, s, lam = _levels(process, ts)
    old, n = None, len(ts) - 1
    for i in range(n):
        d = predict(x, ts[i])
        h = lam[i + 1] - lam[i]
        grow = -np.expm1(-h)
        slope = 0.0
        if i > 0 and not np.isinf(h) and not (lower and i == n - 1):
            diff = (d - old) / (lam[i] - lam[i - 1])
            slope = diff * ((h - grow) if exact else h * grow / 2)
        x = s[i + 1] / s[i] * x + a[i + 1] * (grow * d + slope)
        old = d
    return x


def _exponential(process, ts, i, nodes, values, upper):
    """sigma_t/sigma_s x + sigma_t int e^l P(l) dl by adaptive quadrature."""
    _, s, lam = _levels(process, ts)
    total = 0.0
    for k, value in enumerate(values):
        others = [m for j, m in enumerate(nodes) if j != k]

        def f(u, others=others, k=k):
            out = np.exp(u - lam[i + 1])
            for m in others:
                out *= (u - m) / (nodes[k] - m)
            return out

        total = (
            total
            + value * quad(f, lam[i], upper, epsabs=1e-15, epsrel=1e-14, limit=200)[0]
        )
    return process.alpha(ts[i + 1]) * total


def dpmpp_3m(process, ts, predict, x):
    """Exact Lagrange steps, midpoint rule at the second step."""
    a, s, lam = _levels(process, ts)
    seen = []
    for i in range(len(ts) - 1):
        seen.insert(0, predict(x, ts[i]))
        h = lam[i + 1] - lam[i]
        if np.isinf(h):
            x = a[i + 1] * seen[0]
        elif i == 0:
            x = s[1] / s[0] * x - a[1] * np.expm1(-h) * seen[0]
        elif i == 1:
            slope = (seen[0] - seen[1]) / (lam[1] - lam[0]) * h / 2
            x = s[2] / s[1] * x - a[2] * np.expm1(-h) * (seen[0] + slope)
        else:
            nodes = [lam[i], lam[i - 1], lam[i - 2]]
            step = _exponential(process, ts, i, nodes, seen[:3], lam[i + 1])
            x = s[i + 1] / s[i] * x + step
    return x


def unipc(process, ts, predict, x, order=3):
    """Predict, evaluate, correct; bh2; orders 1, 2, ..., order and no lowering."""
    a, s, lam = _levels(process, ts)
    seen, at = [predict(x, ts[0])], [lam[0]]
    n = len(ts) - 1

    def solve(p, h, r, diffs, b_of):
        z = -h
        b = [_bphi(z, k) / b_of for k in range(1, p + 1)]
        system = np.array([[ri**k for ri in r[:p]] for k in range(p)])
        return np.linalg.solve(system, np.array(b[:p]))

    for i in range(n):
        p = min(order, i + 1)
        h = lam[i + 1] - lam[i]
        base = s[i + 1] / s[i] * x - a[i + 1] * np.expm1(-h) * seen[0]
        r = [(at[k] - lam[i]) / h for k in range(1, p)]
        diff = [(seen[k] - seen[0]) / r[k - 1] for k in range(1, p)]
        big = np.expm1(-h)
        guess = base
        if p == 2:
            guess = base - a[i + 1] * big * 0.5 * diff[0]
        elif p > 2:
            weights = solve(p - 1, h, r, diff, big)
            guess = base - a[i + 1] * big * sum(
                w * d for w, d in zip(weights, diff, strict=True)
            )
        if i == n - 1:
            return guess
        new = predict(guess, ts[i + 1])
        r, diff = [*r, 1.0], [*diff, new - seen[0]]
        weights = np.array([0.5]) if p == 1 else solve(p, h, r, diff, big)
        x = base - a[i + 1] * big * sum(
            w * d for w, d in zip(weights, diff, strict=True)
        )
        seen.insert(0, new)
        at.insert(0, lam[i + 1])
    return x


def _bphi(z, n):
    """z phi_{n+1}(z) n!, by quadrature."""
    value = quad(lambda u: np.exp((1 - u) * z) * u**n, 0, 1, epsabs=1e-15)[0]
    return z * value


def adams(process, ts, predict, x, order=4):
    """Linear multistep in rho, coefficients by adaptive quadrature (as k-diffusion)."""
    a, s, _ = _levels(process, ts)
    u, rho, seen = x / a[0], s / a, []
    for i in range(len(ts) - 1):
        seen.insert(0, _noise(a[i] * u, predict(a[i] * u, ts[i]), a[i], s[i]))
        p = min(order, i + 1)
        for k in range(p):

            def f(v, k=k, i=i, p=p):
                out = 1.0
                for j in range(p):
                    if j != k:
                        out *= (v - rho[i - j]) / (rho[i - k] - rho[i - j])
                return out

            weight = quad(f, rho[i], rho[i + 1], epsabs=1e-15, epsrel=1e-14)[0]
            u = u + weight * seen[k]
    return a[-1] * u


def deis_tab(process, ts, predict, x, order=3):
    """Polynomials in time, integrated over rho by adaptive quadrature in time."""
    a, s, _ = _levels(process, ts)
    u, seen = x / a[0], []

    def rate(t):
        al, si = process.alpha(t), process.sigma(t)
        da, ds = process.rates(t)
        return (ds * al - si * da) / al**2

    for i in range(len(ts) - 1):
        seen.insert(0, _noise(a[i] * u, predict(a[i] * u, ts[i]), a[i], s[i]))
        p = min(order + 1, i + 1)
        for k in range(p):

            def f(t, k=k, i=i, p=p):
                out = rate(t)
                for j in range(p):
                    if j != k:
                        out *= (t - ts[i - j]) / (ts[i - k] - ts[i - j])
                return out

            weight = quad(f, ts[i], ts[i + 1], epsabs=1e-14, epsrel=1e-13, limit=400)[0]
            u = u + weight * seen[k]
    return a[-1] * u

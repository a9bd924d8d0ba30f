"""Solvers of the reverse SDEs as loops from the papers' formulas, one step at a time.

`predict(x, t)` is the data prediction, `z` one draw per evaluation. Integrals are
quadratures of their definitions.
"""

import numpy as np


def _at(process, t):
    with np.errstate(divide="ignore"):
        return process.alpha(t), process.sigma(t), process.half_log_snr(t)


def integral(f, low, high):
    s, w = np.polynomial.legendre.leggauss(48)
    return (high - low) / 2 * (w * f(low + (high - low) * (s + 1) / 2)).sum()


def lagrange(nodes, k, u):
    value = np.ones_like(u)
    for j, node in enumerate(nodes):
        if j != k:
            value = value * (u - node) / (nodes[k] - node)
    return value


def multistep(process, ts, predict, x, z, tau2=1.0, order=1, form="exact"):
    """form: 'exact', 'midpoint' (order 2) or 'published' (order 3's half weight)."""
    seen, points = [], []
    for i in range(len(ts) - 1):
        (_, s0, l0), (a1, s1, l1) = _at(process, ts[i]), _at(process, ts[i + 1])
        seen.insert(0, predict(x, ts[i]))
        points.insert(0, l0)
        if s1 == 0:
            x = seen[0]
            continue
        tau = tau2 if np.ndim(tau2) == 0 else tau2[i]
        h, a = l1 - l0, 1 + tau
        count = min(order, i + 1)
        total = 1 - np.exp(-a * h)
        if count == 2 and form == "midpoint":
            slope = (seen[0] - seen[1]) / (points[0] - points[1])
            mean = total * seen[0] + total / 2 * h * slope
        elif count == 3 and form == "published":  # k-diffusion's lines
            r0, r1 = (points[0] - points[1]) / h, (points[1] - points[2]) / h
            d1_0, d1_1 = (seen[0] - seen[1]) / r0, (seen[1] - seen[2]) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            phi2 = np.expm1(-a * h) / (a * h) + 1
            mean = total * seen[0] + phi2 * d1 - (phi2 / (a * h) - 0.5) * d2
        else:
            nodes, mean = points[:count], 0.0
            for k in range(count):

                def weight(u, k=k, nodes=nodes, a=a, end=l1):
                    return a * np.exp(-a * (end - u)) * lagrange(nodes, k, u)

                mean = mean + integral(weight, l0, l1) * seen[k]
        fresh = s1 * np.sqrt(1 - np.exp(-2 * tau * h))
        x = s1 / s0 * np.exp(-tau * h) * x + a1 * mean + fresh * z[i]
    return x


def noise_multistep(process, ts, predict, x, z, tau2=1.0, form="exact"):
    """SDE-DPM-Solver of order 2: diffusers' lines at tau2 = 1, in general 1 + tau2."""
    seen, points = [], []
    for i in range(len(ts) - 1):
        (a0, s0, l0), (a1, s1, l1) = _at(process, ts[i]), _at(process, ts[i + 1])
        seen.insert(0, (x - a0 * predict(x, ts[i])) / s0)
        points.insert(0, l0)
        h = l1 - l0
        mean = (np.exp(h) - 1) * seen[0]
        if i:
            slope = (seen[0] - seen[1]) * h / (points[0] - points[1])
            half = (np.exp(h) - 1) / 2
            mean = mean + (half if form == "midpoint" else half * 2 / h - 1) * slope
        fresh = s1 * np.sqrt(tau2 * (np.exp(2 * h) - 1))
        x = a1 / a0 * x - (1 + tau2) * s1 * mean + fresh * z[i]
    return x


def _time(process, lam):
    return process.half_log_snr_inverse(lam)


def seeds(process, ts, predict, x, z, tau2=1.0, order=2, published=False):
    """Stages at r h; the last weight is phi_2 / r, or phi_1 / 2r if `published`."""
    marks = {2: (0.0, 0.5), 3: (0.0, 1 / 3, 2 / 3)}[order]
    draws = iter(z)
    for i in range(len(ts) - 1):
        (_, s0, l0), (a1, s1, l1) = _at(process, ts[i]), _at(process, ts[i + 1])
        if s1 == 0:
            x = predict(x, ts[i])
            continue
        h, found, point, n = l1 - l0, [], x, 0.0
        p1 = lambda u: 1 - np.exp(-u)  # noqa: E731
        p2 = lambda u: (u - 1 + np.exp(-u)) / u  # noqa: E731
        big = (1 + tau2) * h
        for j, r in enumerate(marks):
            where = _time(process, l0 + r * h)
            found.append(predict(point, where))
            to = (*marks, 1.0)[j + 1]
            share = (to - r) * h * tau2
            n = np.exp(-share) * n + np.sqrt(1 - np.exp(-2 * share)) * next(draws)
            if j == 0:
                mean = p1(to * big) * found[0]
            else:
                base = marks[j] if to == 1 else marks[1] / to
                scale = p2(to * big) / base
                if published:
                    scale = p1(big) / (2 * r)
                mean = p1(to * big) * found[0] + scale * (found[j] - found[0])
            a, s, _ = _at(process, _time(process, l0 + to * h))
            if to == 1:
                a, s = a1, s1
            point = s / s0 * np.exp(-to * h * tau2) * x + a * mean + s * n
        x = point
    return x


def ancestral_split(rho_s, rho_t, eta):
    up = min(rho_t, eta * np.sqrt(rho_t**2 * (rho_s**2 - rho_t**2) / rho_s**2))
    return np.sqrt(rho_t**2 - up**2), up


def published_sde(process, ts, predict, x, z, eta=1.0, r=0.5):
    """k-diffusion's dpmpp_sde on x / alpha, with independent draws."""
    draws = iter(z)
    y = x / process.alpha(ts[0])
    for i in range(len(ts) - 1):
        (a0, s0, l0), (a1, s1, l1) = _at(process, ts[i]), _at(process, ts[i + 1])
        first = predict(a0 * y, ts[i])
        if s1 == 0:
            y = first
            continue
        inside = _time(process, l0 + r * (l1 - l0))
        am, sm, _ = _at(process, inside)
        down, up = ancestral_split(s0 / a0, sm / am, eta)
        k = down / (s0 / a0)
        y2 = k * y + (1 - k) * first + up * next(draws)
        second = predict(am * y2, inside)
        both = (1 - 1 / (2 * r)) * first + second / (2 * r)
        down, up = ancestral_split(s0 / a0, s1 / a1, eta)
        k = down / (s0 / a0)
        y = k * y + (1 - k) * both + up * next(draws)
    return y * process.alpha(ts[-1])


def ancestral_2s(process, ts, predict, x, z, eta=1.0):
    """k-diffusion's dpmpp_2s_ancestral on x / alpha; draw 2i + 1 closes step i."""
    y = x / process.alpha(ts[0])
    for i in range(len(ts) - 1):
        (a0, s0, _), (a1, s1, _) = _at(process, ts[i]), _at(process, ts[i + 1])
        first, rho = predict(a0 * y, ts[i]), s0 / a0
        if s1 == 0:
            y = first
            continue
        down, up = ancestral_split(rho, s1 / a1, eta)
        half = np.sqrt(down / rho)
        inside = _time(process, -np.log(rho * half))
        y2 = half * y + (1 - half) * first
        second = predict(process.alpha(inside) * y2, inside)
        y = down / rho * y + (1 - down / rho) * second + up * z[2 * i + 1]
    return y * process.alpha(ts[-1])

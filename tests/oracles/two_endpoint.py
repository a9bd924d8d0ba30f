"""Published reverse loops between two endpoints, one formula per line, scalars."""

import numpy as np


def resshift(root_eta, kappa, y, predict, x, z):
    """Yue et al. 2023, eq 7: labels T-1..0; the last label gives the mean."""
    eta = root_eta**2
    before = np.append(0.0, eta[:-1])
    for i in reversed(range(len(eta))):
        d = predict(x, i)
        mean = before[i] / eta[i] * x + (eta[i] - before[i]) / eta[i] * d
        variance = kappa**2 * before[i] / eta[i] * (eta[i] - before[i])
        x = mean + (np.sqrt(variance) * z[len(eta) - 1 - i] if i else 0.0)
    return x


def rddm(abar, bbar, pairs, eta, predict, x, z):
    """Liu et al. 2023, eqs 12-14: (R, E) from `predict`; label -1 gives x_0."""
    for k, (i, j) in enumerate(pairs):
        residual, noise = predict(x, i)
        if j < 0:
            return x - abar[i] * residual - bbar[i] * noise
        v = eta * (bbar[i] ** 2 - bbar[j] ** 2) * bbar[j] ** 2 / bbar[i] ** 2
        x = (
            x
            - (abar[i] - abar[j]) * residual
            - (bbar[i] - np.sqrt(bbar[j] ** 2 - v)) * noise
            + np.sqrt(v) * z[k]
        )
    return x


def rddm_posterior(residual_steps, variance_steps, pairs, predict, x, z):
    """The eta = 1 form with the posterior's own coefficients."""
    total = np.cumsum(variance_steps)
    for k, i in enumerate(pairs):
        residual, noise = predict(x, i)
        step = variance_steps[i]
        x = x - residual_steps[i] * residual - step / np.sqrt(total[i]) * noise
        if i:
            x = x + np.sqrt(step * total[i - 1] / total[i]) * z[k]
    return x


def resfusion(betas, predict, x, z):
    """Shi et al. 2023, eq 33: DDPM's update with the residual noise."""
    alphas = 1 - betas
    bar = np.cumprod(alphas)
    for k, t in enumerate(reversed(range(len(betas)))):
        rho = predict(x, t)
        before = bar[t - 1] if t else 1.0
        spread = np.sqrt((1 - before) / (1 - bar[t]) * betas[t])
        x = (x - betas[t] / np.sqrt(1 - bar[t]) * rho) / np.sqrt(alphas[t])
        x = x + (spread * z[k] if t else 0.0)
    return x


def sgmse(theta, low, high, times, snr, y, score, x, z):
    """Richter et al. 2022: one correction and one reverse step per time."""
    log = np.log(high / low)
    z = iter(z)
    mean = x
    for i, t in enumerate(times):
        last = i == len(times) - 1
        dt = t if last else t - times[i + 1]
        std = np.sqrt(
            low**2
            * np.exp(-2 * theta * t)
            * (np.exp(2 * (theta + log) * t) - 1)
            * log
            / (theta + log)
        )
        size = 2 * (snr * std) ** 2
        x = x + size * score(x, t) + np.sqrt(2 * size) * next(z)
        g = low * (high / low) ** t * np.sqrt(2 * log)
        mean = x - (theta * (y - x) - g**2 * score(x, t)) * dt
        x = mean + g * np.sqrt(dt) * next(z)
    return mean


def sb_ve_published(k, c, times, y, predict, z, sde, small=1e-8):
    """The speech repository's loops, small constants included, written from eqs 13-16.

    The network is told the time that a step leads to; the ODE never draws.
    """

    def parts(t):
        s2 = c * (k ** (2 * t) - 1) / (2 * np.log(k))
        total = c * (k**2 - 1) / (2 * np.log(k))
        return np.sqrt(s2), np.sqrt(total - s2 + small), total

    x = y
    for i, (s, t) in enumerate(zip(times[:-1], times[1:], strict=True)):
        (ss, bs, total), (st, bt, _) = parts(s), parts(t)
        d = predict(x, t)
        if sde:
            kept = st**2 / (ss**2 + small)
            x = kept * x + (1 - kept) * d
            if i < len(times) - 2:
                x = x + st * np.sqrt(1 - kept) * z[i]
        else:
            keep = st * bt / (ss * bs + small)
            of_d = (bt**2 - bs * st * bt / (ss + small)) / (total + small)
            of_y = (st**2 - ss * st * bt / (bs + small)) / (total + small)
            x = keep * x + of_d * d + of_y * y
    return x


def sb_ve(k, c, times, y, predict, z, sde):
    """Jukic et al. 2024: from x = y; the ODE's first step is the mean at times[1]."""

    def parts(t):
        s2 = c * (k ** (2 * t) - 1) / (2 * np.log(k))
        total = c * (k**2 - 1) / (2 * np.log(k))
        return np.sqrt(s2), np.sqrt(max(total - s2, 0.0)), total

    x = y
    for i, (s, t) in enumerate(zip(times[:-1], times[1:], strict=True)):
        (ss, bs, total), (st, bt, _) = parts(s), parts(t)
        d = predict(x, s)
        if sde:
            share = 1 - st**2 / ss**2
            x = st**2 / ss**2 * x + share * d
            if i < len(times) - 2:
                x = x + st * np.sqrt(share) * z[i]
        elif i == 0:
            x = bt**2 / total * d + st**2 / total * y
        else:
            x = (
                st * bt / (ss * bs) * x
                + (bt**2 - bs * st * bt / ss) / total * d
                + (st**2 - ss * st * bt / bs) / total * y
            )
    return x

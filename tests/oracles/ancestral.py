"""Ancestral, churn and Euler-Maruyama samplers as loops, written from the papers.

`predict(x, t)` is E[x_0 | x_t = x]; `z` holds one draw per step.
"""

import math

import numpy as np


def _split(low, high, eta):
    """Karras' down and up levels of a step high -> low, in sigma / alpha."""
    up = min(low, eta * math.sqrt(low**2 * (high**2 - low**2) / high**2))
    return math.sqrt(max(low**2 - up**2, 0.0)), up


def _rho(process, t):
    return float(process.sigma(t)) / float(process.alpha(t))


def _time(process, rho):
    return float(process.half_log_snr_inverse(-math.log(rho)))


def _slope(process, predict, u, t):
    """du / d rho = (u - D) / rho at u = x / alpha."""
    return (u - predict(u * float(process.alpha(t)), t)) / _rho(process, t)


def ddpm(process, ts, predict, x, z, variance="posterior"):
    """Ho et al.: the Gaussian posterior of the forward step, its mean and variance."""
    for i in range(len(ts) - 1):
        s, t = ts[i], ts[i + 1]
        a_s, a_t = float(process.alpha(s)), float(process.alpha(t))
        v_s, v_t = float(process.sigma(s)) ** 2, float(process.sigma(t)) ** 2
        gain = a_s / a_t
        beta = v_s - gain**2 * v_t  # variance of the forward step t -> s
        mean = (a_t * beta * predict(x, s) + gain * v_t * x) / v_s
        wide = variance == "large" and v_t > 0
        x = mean + math.sqrt(beta if wide else beta * v_t / v_s) * z[i]
    return x


def euler_ancestral(process, ts, predict, x, z, eta=1.0, s_noise=1.0):
    u = x / float(process.alpha(ts[0]))
    for i in range(len(ts) - 1):
        high, low = _rho(process, ts[i]), _rho(process, ts[i + 1])
        down, up = _split(low, high, eta)
        u = u + (down - high) * _slope(process, predict, u, ts[i])
        u = u + s_noise * up * z[i]
    return u * float(process.alpha(ts[-1]))


def dpm2_ancestral(process, ts, predict, x, z, eta=1.0, s_noise=1.0):
    u = x / float(process.alpha(ts[0]))
    for i in range(len(ts) - 1):
        high, low = _rho(process, ts[i]), _rho(process, ts[i + 1])
        down, up = _split(low, high, eta)
        d = _slope(process, predict, u, ts[i])
        if down > 0:
            middle = math.exp((math.log(high) + math.log(down)) / 2)
            inner = u + (middle - high) * d
            d = _slope(process, predict, inner, _time(process, middle))
        u = u + (down - high) * d + s_noise * up * z[i]
    return u * float(process.alpha(ts[-1]))


def euler_maruyama(process, ts, predict, x, z, tau2=1.0):
    """x - dt [f - (1 + tau2) / 2 g^2 S] + sqrt(tau2 dt) g z, from f, g and S."""
    for i in range(len(ts) - 1):
        t, dt = ts[i], ts[i] - ts[i + 1]
        a, s = float(process.alpha(t)), float(process.sigma(t))
        d_a, d_s = (float(v) for v in process.rates(t))
        g2 = 2 * s * d_s - 2 * s**2 * d_a / a
        score = (a * predict(x, t) - x) / s**2
        on = tau2 * (float(process.sigma(ts[i + 1])) > 0)
        x = x - dt * (d_a / a * x - (1 + on) / 2 * g2 * score)
        x = x + math.sqrt(on * g2 * dt) * z[i]
    return x


def churn(
    process, ts, predict, x, z, method, s_churn, s_min=0, s_max=math.inf, s_noise=1.0
):
    """Karras' algorithm 2; 'euler' leaves out its correction, 'dpm2' moves it."""
    n = len(ts) - 1
    u = x / float(process.alpha(ts[0]))
    for i in range(n):
        own, low = _rho(process, ts[i]), _rho(process, ts[i + 1])
        inside = s_min <= own <= s_max
        gamma = min(s_churn / n, math.sqrt(2) - 1) if inside else 0.0
        hat = own * (1 + gamma)
        u = u + math.sqrt(hat**2 - own**2) * s_noise * z[i]
        d = _slope(process, predict, u, _time(process, hat))
        if low > 0 and method == "heun":
            after = _slope(process, predict, u + (low - hat) * d, ts[i + 1])
            d = (d + after) / 2
        if low > 0 and method == "dpm2":
            middle = math.sqrt(hat * low)
            inner = u + (middle - hat) * d
            d = _slope(process, predict, inner, _time(process, middle))
        u = u + (low - hat) * d
    return u * float(process.alpha(ts[-1]))


def late_churn(ts, predict, x, z, predicts, s_churn, s_noise=1.0):
    """diffusers on alpha = 1, t = sigma: the network's output, then the noise."""
    n = len(ts) - 1
    for i in range(n):
        sigma, hat = ts[i], ts[i] * (1 + min(s_churn / n, math.sqrt(2) - 1))
        root = math.sqrt(sigma**2 + 1)
        data = predict(x, sigma)
        noise = (x - data) / sigma
        velocity = (x / root**2 - data) * root / sigma  # from x0 = x / r^2 - v s / r
        x = x + s_noise * math.sqrt(hat**2 - sigma**2) * z[i]
        if predicts == "noise":
            data = x - hat * noise
        else:
            data = x / root**2 - velocity * sigma / root
        x = x + (x - data) / hat * (ts[i + 1] - hat)
    return np.asarray(x)

"""Mean reversion and its samplers as loops in x itself, the degraded mu in every step.

No centring: with x_t = a x_0 + b mu + s eps every step carries mu's own weight
b_t - keep b_s. Integrals are quadratures of their definitions.
"""

import math

import numpy as np

from .sde import integral, lagrange


def chain(schedule, steps, lambda_inf, eps):
    """alpha, sigma at the labels 0..T, by the published discrete recursion."""
    theta = []
    for i in range(steps + 1):
        if schedule == "constant":
            theta.append(1.0)
        elif schedule == "linear":
            low, high = 1000 / (steps + 1) * 1e-4, 1000 / (steps + 1) * 2e-2
            theta.append(low + (high - low) * i / steps)
        else:
            u = [(j / (steps + 2) + 0.008) / 1.008 for j in (0, i + 1)]
            a, b = (math.cos(v * math.pi / 2) ** 2 for v in u)
            theta.append(1 - b / a)
    dt = -math.log(eps) / sum(theta[1:])
    mean, variance = 1.0, 0.0  # of x_0's weight, and of the noise
    alpha, sigma = [mean], [0.0]
    for i in range(1, steps + 1):
        decay = math.exp(-theta[i] * dt)
        mean *= decay
        variance = decay**2 * variance + lambda_inf**2 * (1 - decay**2)
        alpha.append(mean)
        sigma.append(math.sqrt(variance))
    return np.array(alpha), np.array(sigma)


def _third(seen, lams, h, data):
    """Published third order: sum of phi functions, the last with half its factor."""
    h1, h2 = lams[0] - lams[1], lams[1] - lams[2]
    newer, older = (seen[0] - seen[1]) / h1, (seen[1] - seen[2]) / h2
    slope = h * (newer + (newer - older) * h1 / (h1 + h2))
    bend = h**2 * (newer - older) / (h1 + h2)
    sign = -1 if data else 1
    phi1 = math.expm1(sign * h)
    phi2 = phi1 / h - sign
    phi3 = phi2 / h - 0.5
    if data:
        return -(phi1 * seen[0] - phi2 * slope + phi3 * bend)
    return -(phi1 * seen[0] + phi2 * slope + phi3 * bend)


def sample(levels, predict, x, mu, z, order, tau2=0.0, data=True, published=False):
    """The MR sampler in x; levels: (alpha, sigma) of the grid, predict(x, i) is D."""
    seen, lams = [], []
    alpha, sigma = levels
    for i in range(len(alpha) - 1):
        a0, s0, a1, s1 = alpha[i], sigma[i], alpha[i + 1], sigma[i + 1]
        d = predict(x, i)
        if s1 == 0:  # the limit: the data prediction, or its twin in E
            x = d
            continue
        e = (x - a0 * d - (1 - a0) * mu) / s0
        seen.insert(0, d if data else e)
        lams.insert(0, math.log(a0 / s0))
        end, count, a = math.log(a1 / s1), min(order, i + 1), 1 + tau2
        h = end - lams[0]
        keep = s1 / s0 * math.exp(-tau2 * h) if data else a1 / a0
        noise = s1 * math.sqrt(-math.expm1(-2 * tau2 * h))
        if not data:
            noise = s1 * math.sqrt(tau2 * math.expm1(2 * h))
        if published and count == 3:
            total = (a1 if data else s1) * _third(seen, lams, h, data)
        else:
            total = 0.0
            for j in range(count):
                nodes = lams[:count]

                def weight(u, j=j, nodes=nodes, end=end, a=a):
                    rate = np.exp(-a * (end - u)) if data else np.exp(end - u)
                    return a * rate * lagrange(nodes, j, u)

                scale = a1 if data else -s1
                total = total + scale * integral(weight, lams[0], end) * seen[j]
        x = keep * x + total + noise * z[i]
        x = x + (1 - a1 - keep * (1 - a0)) * mu
    return x


def reverse_chain(theta_dt, lambda_inf, levels, predict, x, mu, z):
    """IR-SDE's published reverse loop: Euler-Maruyama, label by label."""
    alpha, sigma = levels
    for i, rate in enumerate(theta_dt):
        d = predict(x, i)
        score = -(x - alpha[i] * d - (1 - alpha[i]) * mu) / sigma[i] ** 2
        drift = rate * (mu - x) - 2 * lambda_inf**2 * rate * score
        x = x - drift + lambda_inf * math.sqrt(2 * rate) * z[i]
    return x

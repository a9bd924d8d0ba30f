"""SA-Solver as a loop: Lagrange polynomials, adaptive quadrature, one z per step."""

import numpy as np
from numpy.polynomial import Polynomial
from scipy.integrate import quad


def integrals(rate, length, nodes):
    """int_0^length e^{-rate (length - v)} l_k(v) dv, one node after another."""
    out = []
    for k, node in enumerate(nodes):
        basis = Polynomial([1.0])
        for j, other in enumerate(nodes):
            if j != k:
                basis = basis * Polynomial([-other, 1.0]) / (node - other)
        value, _ = quad(
            lambda v, p=basis: np.exp(-rate * (length - v)) * p(v),
            0.0,
            length,
            epsabs=1e-14,
            epsrel=1e-13,
        )
        out.append(value)
    return np.array(out)


def sa_solver(
    process,
    ts,
    predict,
    x,
    z,
    tau,
    predictor=3,
    corrector=4,
    prediction="data",
    lower=False,
    few_step=False,
    close=False,
):
    """`tau`, `z`: one per step. `close`: the last step is corrected too."""
    data = prediction == "data"
    alpha, sigma, lam = process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)
    n = len(ts) - 1

    def evaluate(x, i):
        d = predict(x, ts[i])
        return d if data else (x - alpha[i] * d) / sigma[i]

    def step(i, x, nodes, found, extra):
        """Step i from x with these evaluations, newest first."""
        h, a = lam[i + 1] - lam[i], 1 + tau[i] ** 2
        if data:
            weights = a * integrals(a, h, [lam[k] - lam[i] for k in nodes])
            if few_step and len(nodes) == 2:
                if extra:
                    new = a * h / 2
                    weights = np.array([new, 1 - np.exp(-a * h) - new])
                else:
                    old = -a * h**2 / (2 * (lam[i] - lam[i - 1]))
                    weights = np.array([1 - np.exp(-a * h) - old, old])
            mean = sigma[i + 1] / sigma[i] * np.exp(-(tau[i] ** 2) * h) * x
            std = sigma[i + 1] * np.sqrt(1 - np.exp(-2 * tau[i] ** 2 * h))
            scale = alpha[i + 1]
        else:
            weights = a * integrals(-1.0, h, [lam[k] - lam[i] for k in nodes])
            mean = alpha[i + 1] / alpha[i] * x
            std = tau[i] * sigma[i + 1] * np.sqrt(np.exp(2 * h) - 1)
            scale = -sigma[i + 1]
        mean = mean + scale * sum(
            w * found[k] for w, k in zip(weights, nodes, strict=True)
        )
        return mean + std * z[i]

    found = {0: evaluate(x, 0)}
    for i in range(n):
        p, c = min(predictor, i + 1), min(corrector, i + 2)
        if lower:
            p, c = min(p, n - i), min(c, n - i + 1)
        guess = step(i, x, [i - k for k in range(p)], found, False)
        if i == n - 1 and not close:
            return guess
        found[i + 1] = evaluate(guess, i + 1)
        if c > 0:
            x = step(i, x, [i + 1 - k for k in range(c)], found, True)
        else:
            x = guess
    return x

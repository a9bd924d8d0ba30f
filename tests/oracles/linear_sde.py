"""gDDIM step by step: every integral by adaptive quadrature or an ODE of its own."""

import numpy as np
from scipy.integrate import quad_vec, solve_ivp

TIGHT = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-13}


def at(f, t):
    return f(np.array([t]))[0]


def deterministic(process, ts, denoiser, u, order):
    """u_t = Psi u + sum_j [int 1/2 Psi G G^T R^{-T} l_j] eps_j, states (k, B)."""
    past = []
    for i in range(len(ts) - 1):
        s, t = ts[i], ts[i + 1]
        psi, r = process.transition(s, 0.0), process.root(s)
        past.insert(0, (s, np.linalg.solve(r, u - psi @ denoiser(u, s))))
        past = past[:order]
        nodes = [p[0] for p in past]
        new = process.transition(t, s) @ u
        for j, (_, eps) in enumerate(past):

            def integrand(tau, j=j, nodes=nodes, t=t):
                g = at(process.diffusion, tau)
                value = process.transition(t, tau) @ g @ g.T / 2
                value = value @ np.linalg.inv(process.root(tau)).T
                for m, node in enumerate(nodes):
                    if m != j:
                        value = value * (tau - node) / (nodes[j] - node)
                return value

            weight = quad_vec(integrand, s, t, epsabs=1e-10, epsrel=1e-10)[0]
            new = new + weight @ eps
        u = new
    return u


def stochastic_step(process, s, t, lam):
    """Psi^ and the covariance P of one step, from their own ODEs backward in time."""
    k = process.channels

    def rate(time, y):
        hat, p = y.reshape(2, k, k)
        g = at(process.diffusion, time)
        drift = at(process.drift, time) + (1 + lam**2) / 2 * g @ g.T @ np.linalg.inv(
            process.covariance(time)
        )
        grow = drift @ p + p @ drift.T - lam**2 * g @ g.T  # time runs down
        return np.concatenate([(drift @ hat).ravel(), grow.ravel()])

    first = np.concatenate([np.eye(k).ravel(), np.zeros(k * k)])
    return solve_ivp(rate, (s, t), first, **TIGHT).y[:, -1].reshape(2, k, k)

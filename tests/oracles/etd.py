"""Naive exponential Runge-Kutta loops, phi by contour integrals."""

import math

import numpy as np


def phi(k, z):
    """phi_k as the mean over a circle around z of the plain recurrence."""
    z = np.asarray(z, complex)
    circle = z[..., None] + 2 * np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
    value = np.exp(circle)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / circle
    return value.mean(axis=-1)


def cox_matthews(linear, rest, u, h, steps):
    """ETDRK4, in the order of the 2002 paper."""
    z = h * np.asarray(linear)
    half, whole = np.exp(z / 2).astype(complex), np.exp(z).astype(complex)
    q = h / 2 * phi(1, z / 2)
    p1, p2, p3 = (phi(k, z) for k in (1, 2, 3))
    for i in range(steps):
        t = i * h
        n0 = rest(t, u)
        a = half * u + q * n0
        na = rest(t + h / 2, a)
        b = half * u + q * na
        nb = rest(t + h / 2, b)
        c = half * a + q * (2 * nb - n0)
        nc = rest(t + h, c)
        u = (
            whole * u
            + h * (p1 - 3 * p2 + 4 * p3) * n0
            + h * (2 * p2 - 4 * p3) * (na + nb)
            + h * (4 * p3 - p2) * nc
        )
    return u


def krogstad(linear, rest, u, h, steps):
    """ETDRK4-B, in the order of the 2005 paper."""
    z = h * np.asarray(linear)
    half, whole = np.exp(z / 2).astype(complex), np.exp(z).astype(complex)
    h1, h2 = phi(1, z / 2), phi(2, z / 2)
    p1, p2, p3 = (phi(k, z) for k in (1, 2, 3))
    for i in range(steps):
        t = i * h
        n1 = rest(t, u)
        n2 = rest(t + h / 2, half * u + h / 2 * h1 * n1)
        n3 = rest(t + h / 2, half * u + h * ((h1 / 2 - h2) * n1 + h2 * n2))
        n4 = rest(t + h, whole * u + h * ((p1 - 2 * p2) * n1 + 2 * p2 * n3))
        u = whole * u + h * (
            (p1 - 3 * p2 + 4 * p3) * n1
            + (2 * p2 - 4 * p3) * (n2 + n3)
            + (4 * p3 - p2) * n4
        )
    return u


def res_3(linear, rest, u, h, steps, c2, c3):
    """RES-3 with gamma from its own condition, b_2 c2^2 + b_3 c3^2 = 2 phi_3 at 0."""
    z = h * np.asarray(linear)
    whole = np.exp(z).astype(complex)
    # b_2 c2 + b_3 c3 = 1/2 and b_2 c2^2 + b_3 c3^2 = 1/3 give the ratio b_2 / b_3.
    b2, b3 = np.linalg.solve([[c2, c3], [c2**2, c3**2]], [1 / 2, 1 / 3])
    gamma = b2 / b3
    a32 = gamma * c2 * phi(2, c2 * z) + c3**2 / c2 * phi(2, c3 * z)
    a31 = c3 * phi(1, c3 * z) - a32
    w3 = phi(2, z) / (gamma * c2 + c3)
    for i in range(steps):
        t = i * h
        n1 = rest(t, u)
        u2 = np.exp(c2 * z) * u + h * c2 * phi(1, c2 * z) * n1
        n2 = rest(t + c2 * h, u2)
        u3 = np.exp(c3 * z) * u + h * (a31 * n1 + a32 * n2)
        n3 = rest(t + c3 * h, u3)
        w1 = phi(1, z) - (1 + gamma) * w3
        u = whole * u + h * (w1 * n1 + gamma * w3 * n2 + w3 * n3)
    return u

"""Two stiff equations in Fourier space, the state as (real, imaginary) rows."""

import jax
import jax.numpy as jnp
import numpy as np


def join(u):
    return jax.lax.complex(u[0], u[1])


def split(c, xp=jnp):
    return xp.stack([c.real, c.imag])


class Kuramoto:
    """u_t = -u_xx - u_xxxx - u u_x on a period of 22."""

    def __init__(self, points=32, length=22.0):
        self.points = points
        self.k = 2 * np.pi / length * np.arange(points // 2 + 1)
        self.linear = self.k**2 - self.k**4
        self.keep = np.arange(points // 2 + 1) < points / 3
        x = np.arange(points) / points
        u = np.cos(2 * np.pi * x) * (1 + np.sin(2 * np.pi * x)) + 0.3 * np.sin(
            4 * np.pi * x
        )
        self.start = np.fft.rfft(u) / points

    def rest(self, c, xp=jnp):
        """The nonlinear part of the Fourier coefficients c."""
        u = xp.fft.irfft(c * self.points, self.points)
        return (-0.5j * self.k * self.keep / self.points) * xp.fft.rfft(u**2)


class AllenCahn:
    """u_t = 0.01 u_xx + u - u^3 on a period of 2 pi, de-aliased."""

    def __init__(self, points=64, speed=0.01):
        self.points = points
        k = np.arange(points // 2 + 1)
        self.linear = -speed * k.astype(float) ** 2 + 1
        self.keep = k < points / 4
        x = 2 * np.pi * np.arange(points) / points
        self.start = np.fft.rfft(0.6 * np.sin(x) + 0.3 * np.cos(2 * x)) / points

    def rest(self, c, xp=jnp):
        u = xp.fft.irfft(c * self.points, self.points)
        return (self.keep * (-1 + 0j) / self.points) * xp.fft.rfft(u**3)

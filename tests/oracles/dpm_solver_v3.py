"""DPM-Solver-v3 as a plain loop over steps, in noise prediction, from the paper."""

import math

import numpy as np

POINTS, MASS = np.polynomial.legendre.leggauss(12)


class Tables:
    """Piecewise linear l, s, b; integrals over cells by Gauss or by the trapezoid."""

    def __init__(self, low, high, l, s, b, trapezoid):  # noqa: E741
        self.nodes = np.linspace(low, high, len(l))
        self.l, self.s, self.b, self.trapezoid = l, s, b, trapezoid

    def value(self, table, lam):
        return np.stack(
            [np.interp(lam, self.nodes, t) for t in table.reshape(len(table), -1).T]
        ).reshape(table.shape[1:])

    def cuts(self, a, b):
        inner = self.nodes[(self.nodes > a + 1e-11) & (self.nodes < b - 1e-11)]
        return np.concatenate([[a], inner, [b]])

    def integral(self, f, a, b):
        """int_a^b f, f smooth between nodes."""
        if a > b:
            return -self.integral(f, b, a)
        total = 0.0
        for p, q in zip(self.cuts(a, b)[:-1], self.cuts(a, b)[1:], strict=True):
            if self.trapezoid:
                total = total + (q - p) * (f(p) + f(q)) / 2
            else:
                for u, w in zip(POINTS, MASS, strict=True):
                    total = total + w * (q - p) / 2 * f((p + q) / 2 + u * (q - p) / 2)
        return total

    def drift(self, a, b):
        return self.plain(self.l, a, b)

    def growth(self, a, b):
        return self.plain(self.s, a, b)

    def plain(self, table, a, b):
        """The trapezoid is exact here."""
        if a > b:
            return -self.plain(table, b, a)
        cuts = self.cuts(a, b)
        v = np.stack([self.value(table, c) for c in cuts])
        return np.einsum("i,i...->...", np.diff(cuts), (v[1:] + v[:-1]) / 2)

    def offset(self, s, lam):
        """int_s^lam e^{-(S - S_s)} b."""
        f = lambda r: np.exp(-self.growth(s, r)) * self.value(self.b, r)  # noqa: E731
        return self.integral(f, s, lam)


def update(tables, x, s, t, alpha_s, alpha_t, nodes, f, pseudo):
    """One step; nodes[0] = s, f the evaluations there."""
    weight = lambda r: np.exp(tables.drift(s, r) + tables.growth(s, r))  # noqa: E731
    g = [
        np.exp(-tables.growth(s, n)) * v - tables.offset(s, n)
        for n, v in zip(nodes, f, strict=True)
    ]
    count = len(nodes)
    slopes = []
    if pseudo:
        for k in range(1, count):
            newton = sum(
                g[j] / math.prod(nodes[j] - nodes[m] for m in range(k + 1) if m != j)
                for j in range(k + 1)
            )
            slopes.append(math.factorial(k) * newton)
    elif count > 1:
        matrix = np.array(
            [[(n - s) ** k / math.factorial(k) for k in range(1, count)] for n in nodes]
        )[1:]
        known = np.stack([v - g[0] for v in g[1:]])
        slopes = list(np.einsum("ij,j...->i...", np.linalg.inv(matrix), known))
    total = tables.integral(lambda r: weight(r) * (g[0] + tables.offset(s, r)), s, t)
    for k, slope in enumerate(slopes, 1):
        total = total + slope * tables.integral(
            lambda r, k=k: weight(r) * (r - s) ** k / math.factorial(k), s, t
        )
    decay = np.exp(-tables.drift(s, t))
    return alpha_t / alpha_s * decay * x - alpha_t * decay * total


def sample(lam, alpha, sigma, tables, noise, x, order, p_pseudo, corrector, c_pseudo):
    """noise(x, i) is the noise prediction at level i."""
    n = len(lam) - 1
    predicted, f, last = x, [], 0
    for i in range(n):
        e = noise(predicted, i)
        now = (sigma[i] * e - tables.value(tables.l, lam[i]) * predicted) / alpha[i]
        count = last + (1 if c_pseudo else 0)
        if i and corrector and count > 1:
            at = [i - 1, i] + list(range(i - 2, i - count, -1))
            values = [now if j == i else f[j] for j in at]
            x = update(
                tables,
                x,
                lam[i - 1],
                lam[i],
                alpha[i - 1],
                alpha[i],
                lam[at],
                values,
                c_pseudo,
            )
        else:
            x = predicted
        f.append(now)
        last = min(order, i + 1, n - i)
        at = list(range(i, i - last, -1))
        predicted = update(
            tables,
            x,
            lam[i],
            lam[i + 1],
            alpha[i],
            alpha[i + 1],
            lam[at],
            [f[j] for j in at],
            p_pseudo,
        )
    return predicted

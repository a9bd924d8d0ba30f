"""Plans run on the host, without a compilation per shape: for order measurements."""

import numpy as np

import fastdiff_jax as fd

from . import mixture as m
from .table import spoiled


def run(plan, x, predict=m.predict):
    """The sample of a plan of NumPy weights, the mixture's exact prediction inside."""
    alpha, sigma = plan.rows.level.alpha, plan.rows.level.sigma
    return fd.plan.replay(plan, lambda y, i: predict(y, alpha[i], sigma[i]), x)


def loop(oracle, process, ts, x, predict=m.predict, **options):
    """The same by a naive loop."""

    def at(y, t):
        return predict(y, float(process.alpha(t)), float(process.sigma(t)))

    return oracle(process, ts, at, x, **options)


def slope(build, name, power=1.0, counts=(80, 160)):
    """Observed order on a path between two step counts, RMS over 41 points."""
    process, x, end = m.problem(name)
    found = []
    for n in counts:
        plan = build(process, m.times_between(process, n, power))
        found.append(np.sqrt(np.mean((run(plan, x[:, 0]) - end[:, 0]) ** 2)))
    return float(np.log2(found[0] / found[1]) / np.log2(counts[1] / counts[0]))


def wrong(build, factor=1.02):
    """The builder with every weight on stored evaluations a little off."""

    def planted(process, ts):
        return spoiled(build(process, ts), older=factor)

    return planted

"""Strict numerics for every test, and the golden counts at the end of the run."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # a mesh to test on
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def mixture():
    """The exact denoiser of a two-mode mixture on the line."""
    import fastdiff_jax as fd

    return fd.models.gaussian_mixture(
        [0.4, 0.6], np.array([[-1.0], [1.2]]), np.array([[0.2], [0.3]])
    )


def pytest_terminal_summary(terminalreporter):
    rows = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "golden" and getattr(report, "when", "") == "call":
                    rows.append(value)
    if not rows:
        return
    terminalreporter.section("golden cases")
    terminalreporter.write_line(
        f"{'family':40}{'passed':>8}{'failed':>8}{'not yet':>9}"
    )
    for family, counts in sorted(rows):
        terminalreporter.write_line(
            f"{family:40}{counts[0]:8}{counts[1]:8}{counts[2]:9}"
        )
    total = [sum(c[i] for _, c in rows) for i in range(3)]
    terminalreporter.write_line(f"{'all':40}{total[0]:8}{total[1]:8}{total[2]:9}")

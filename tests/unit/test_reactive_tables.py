import hashlib

import numpy as np
import pytest

from feature_repo.ticks.queue_reactive import generate_day
from feature_repo.ticks.reactive_tables import LEVELS, MOST_UNITS, MarketParameters, published_tables


@pytest.mark.parametrize(
    ("arguments", "rows", "digest"),
    [
        ((3, 1, 7200, 10_100, 1.0), 71_970, "15605ce0839d69e35912287060334126a979d1f3e080a89a611379ef097ba38f"),
        ((11, 5, 600, 50, 0.3), 6_715, "3ecf2da0d4f99c6ee96cbf55c269c26782027583a56bd8e5c03eca5f3b99ffb6"),
        ((7, 739258, 23400, 9900, 0.0), 330_106, "b4c30febb95923a1addce68cfe4654eef0142131f30f9f2991d06b9638ca4321"),
    ],
)
def test_generated_days_have_the_bytes_that_published_figures_stand_on(arguments, rows, digest):
    made = generate_day(*arguments, MarketParameters())
    assert len(made) == rows
    assert hashlib.sha256(np.ascontiguousarray(made, "<i8").tobytes()).hexdigest() == digest


def test_published_tables_are_those_of_the_docs():
    tables, p = published_tables(), MarketParameters()
    assert tables.limit.shape == tables.cancel.shape == (LEVELS, MOST_UNITS + 1)
    np.testing.assert_allclose(tables.limit[0, [0, 6, 12, 40]], 0.6 * np.array([6.0, 3.5, 1.0, 1.0]))
    np.testing.assert_allclose(tables.limit[3, [0, 12]], [0.22 * 6, 0.22])
    np.testing.assert_allclose(tables.cancel[:, 10], [0.5, *[0.25] * 5])
    assert (tables.market == p.trades / 2).all() and (tables.depletion == p.attempts / 2).all()
    assert tables.tilt(0.6) == min(p.max_flow_tilt, p.flow_tilt * 0.6) and tables.tilt(0.0) == 0.0

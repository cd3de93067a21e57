"""How far apart two forms of the same nets are on real examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from doctune.inference.artifact import Artifact
from doctune.inference.engine import Engine
from doctune.inference.examples import Examples
from doctune.inference.nets import Arrays, Net


def largest_difference(
    artifact: Artifact, nets: Mapping[str, Net], others: Mapping[str, Net], examples: Examples
) -> float:
    """The largest difference between their outputs on the same arrays; infinite where one of them is no number.

    Args:
        artifact: of the model folder.
        nets: by name; what the examples are computed by.
        others: the same nets in another form.
        examples: real ones.
    """
    twins = {name: _Compared(nets[name], other) for name, other in others.items()}
    examples.answers(Engine(artifact, twins, "torch"))
    return max(twin.max_difference for twin in twins.values())


class _Compared:
    """Computes by one net, and notes how far another is from it on the same arrays."""

    def __init__(self, net: Net, other: Net) -> None:
        self._net = net
        self._other = other
        self.max_difference = 0.0

    def __call__(self, arrays: Arrays) -> dict[str, Any]:
        found, others = self._net(arrays), self._other(arrays)
        for name, array in found.items():
            difference = float(np.abs(array - others[name]).max())
            self.max_difference = max(self.max_difference, difference if np.isfinite(difference) else np.inf)
        return found

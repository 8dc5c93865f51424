"""Which channels go first when nothing is refitted between: ThiNet's greedy allocation.

Luo, Wu, Lin 2017, "ThiNet: A Filter Level Pruning Method" (ICCV), eq. 6 and algorithm 1: of the channels T that go, the
sum over samples of (sum over j in T of x_j)^2 shall be least, x_j being what channel j adds to a consumer's output.
Channels join T one at a time, each the one that raises it least. They draw samples of one output each; here it is all
outputs, by second moments S of the columns: the sum is that of Q_jk over j, k in T, with Q_jk = sum_o w_oj S_jk w_ok^T.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from yoloprune.darknet.model import Model
from yoloprune.prune.channels import Group, KeepMask
from yoloprune.prune.elimination import readings
from yoloprune.prune.moments import Consumer, Moments


def thinet_order(
    model: Model, group: Group, keep: KeepMask, consumers: Mapping[int, Consumer], moments: Mapping[int, Moments]
) -> tuple[int, ...]:
    """Positions in the group in the order they go; those gone already (not in `keep`) first.

    Outputs are weighted, and consumers added up, as in elimination.py.
    """
    size = len(group.units)
    q = np.zeros((size, size))
    for each in readings(model, group, keep, consumers, moments):
        by_column = ((each.weight.mT @ each.weight) * each.gram[:, :-1, :-1]).sum(0).numpy()
        member = np.zeros((size, by_column.shape[0]))
        for position, columns in enumerate(each.columns):
            member[position, columns] = 1
        q += member @ by_column @ member.T
    order = [int(position) for position in np.flatnonzero(~keep[group.units])]
    rise = np.diag(q).copy()
    left = keep[group.units].copy()
    while left.any():
        chosen = int(np.argmin(np.where(left, rise, np.inf)))
        order.append(chosen)
        left[chosen] = False
        rise += 2 * q[chosen]
    return tuple(order)

"""A hierarchy of classes, as `tree=` names it (Darknet: tree.c): for softmax by groups, and for walking down.

One class a line, its name and its parent's number (-1: none). Lines of one parent in a row are a group: of its classes
one is true, given the parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from yoloprune.darknet.operators import Operators, Value
from yoloprune.darknet.options import Options

_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Tree:
    """Parents and groups of K classes."""

    parents: tuple[int, ...]
    """For each class its parent, always a lower number; -1 at the top."""
    sizes: tuple[int, ...]
    """Of the groups, in the order of the classes."""

    @classmethod
    def read(cls, options: Options, classes: int) -> Tree | None:
        """From the file that `tree=` names: from the current folder, as Darknet, else from the cfg's or that above."""
        name = options.text("tree", "")
        if not name:
            return None
        folder = Path(options.cfg.file).parent
        candidates = (Path(name), folder / name, folder.parent / name)
        path = next((each for each in candidates if each.is_file()), Path(name))
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise options.error(f"expected a file of up to {_MOST_BYTES} bytes", "tree")
            lines = path.read_text("utf-8", "surrogateescape").splitlines()
        except (OSError, ValueError) as error:
            raise options.error(f"cannot be read: {getattr(error, 'strerror', error)}", "tree") from error
        tree = cls(*_parsed(options, lines))
        if len(tree.parents) != classes:
            raise options.error(f"expected {classes} classes in it, found {len(tree.parents)}", "tree")
        return tree

    def softmax(self, x: Tensor, dim: int) -> Tensor:
        """Within each group along `dim`, which has K classes."""
        return torch.cat([part.softmax(dim) for part in torch.split(x, list(self.sizes), dim)], dim)

    def convert(self, ops: Operators, x: Value, axis: int) -> Value:
        """The same in operators."""
        stops = list(accumulate(self.sizes))
        parts = (ops.slice(x, axis, stop - size, stop) for size, stop in zip(self.sizes, stops, strict=True))
        return ops.concat([ops.op("Softmax", part, axis=axis) for part in parts], axis)

    def products(self, probs: Tensor) -> Tensor:
        """Each class given its parent -> each class: [M, K] -> the same (hierarchy_predictions)."""
        columns = list(probs.unbind(1))
        for number, parent in enumerate(self.parents):
            if parent >= 0:
                columns[number] = columns[number] * columns[parent]
        return torch.stack(columns, 1)

    def leaves(self, probs: Tensor) -> Tensor:
        """As `products`, but 0 for classes that have children."""
        inner = torch.tensor(sorted(set(self.parents) - {-1}), dtype=torch.long, device=probs.device)
        return self.products(probs).index_fill(1, inner, 0.0)

    def walk(self, probs: Tensor, thresh: float) -> Tensor:
        """For each row of `products` [M, K] the class where a walk down stops [M] (hierarchy_top_prediction).

        It goes to the best class of a group while the product of the way is over `thresh`.
        """
        starts = [sum(self.sizes[:number]) for number in range(len(self.sizes))]
        child = {self.parents[start]: number for number, start in enumerate(starts)}
        found = [self._stop(row, starts, child, thresh) for row in probs]
        return torch.tensor(found, dtype=torch.long, device=probs.device)

    def _stop(self, row: Tensor, starts: list[int], child: dict[int, int], thresh: float) -> int:
        group, way = 0, 1.0
        while True:
            part = row[starts[group] : starts[group] + self.sizes[group]]
            best = int(part.argmax())
            if way * float(part[best]) <= thresh:
                return starts[0] + best if group == 0 else self.parents[starts[group]]
            way *= float(part[best])
            if starts[group] + best not in child:
                return starts[group] + best
            group = child[starts[group] + best]


def _parsed(options: Options, lines: list[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    parents: list[int] = []
    sizes: list[int] = []
    for number, line in enumerate(lines):
        words = line.split()
        parent = words[1] if len(words) > 1 else "-1"
        if not parent.removeprefix("-").isdecimal() or not -1 <= int(parent) < number:
            raise options.error(f"line {number + 1}: expected a class and a parent before it, or -1", "tree")
        if parents and int(parent) == parents[-1]:
            sizes[-1] += 1
        elif int(parent) in parents:
            raise options.error(f"line {number + 1}: expected all children of {parent} in a row", "tree")
        else:
            sizes.append(1)
        parents.append(int(parent))
    return tuple(parents), tuple(sizes)

"""Where to put the names of points so that none covers another name or another point."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The shared area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def outside(self, frame: Box) -> float:
        """The area that sticks out of ``frame``."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(frame)


def place(
    points: list[tuple[float, float, float]],
    sizes: list[tuple[float, float]],
    frame: Box,
    taken: list[Box] | None = None,
) -> list[Box]:
    """Choose a box for the label of each point.

    points: (x, y, radius).  sizes: (width, height) of each label.  frame: where labels may lie.
    taken: boxes that must stay free.  Candidates lie on rings around the point, nearest first; labels are improved
    one after the other until nothing changes. Deterministic.
    """
    marks = [Box(x - r - 1, y - r - 1, x + r + 1, y + r + 1) for x, y, r in points]
    candidates = [_around(point, size) for point, size in zip(points, sizes, strict=True)]
    fixed = list(taken or [])
    chosen: list[Box | None] = [None] * len(points)
    for _ in range(20):
        changed = False
        # The most crowded point first: it has the fewest places to go.
        for index in sorted(range(len(points)), key=lambda i: (-_crowd(points, i), i)):
            others = [box for i, box in enumerate(chosen) if i != index and box is not None]

            def cost(candidate: tuple[Box, float], others: list[Box] = others) -> float:
                box, price = candidate
                hits = sum(_hit(box, o) for o in others) * 2
                hits += sum(_hit(box, m) for m in marks) + sum(_hit(box, f) for f in fixed)
                return price + hits + box.outside(frame) * 8

            best = min(candidates[index], key=cost)[0]
            changed |= best != chosen[index]
            chosen[index] = best
        if not changed:
            break
    return [box for box in chosen if box is not None]


def spread(wanted: list[float], pitch: float, low: float, high: float) -> list[float]:
    """Positions as near to the wanted ones as a distance of ``pitch`` and the range allow, in the same order."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    positions = [0.0] * len(wanted)
    last = low - pitch
    for index in order:
        last = positions[index] = max(wanted[index], last + pitch)
    limit = high
    for index in reversed(order):  # push back up what ran out at the end
        positions[index] = min(positions[index], limit)
        limit = positions[index] - pitch
    return positions


def _hit(box: Box, other: Box) -> float:
    """Even a sliver of overlap is worse than a place farther away."""
    area = box.overlap(other)
    return 80.0 + area if area > 0 else 0.0


def _crowd(points: list[tuple[float, float, float]], index: int) -> int:
    x, y, _ = points[index]
    return sum(abs(px - x) < 80 and abs(py - y) < 40 for px, py, _ in points)


def _around(point: tuple[float, float, float], size: tuple[float, float]) -> list[tuple[Box, float]]:
    """Candidate boxes with their price: right, left, above, below first, then farther away all around."""
    x, y, radius = point
    width, height = size
    boxes = []
    for ring, gap in enumerate((4.0, 14.0, 26.0, 38.0, 52.0, 68.0, 86.0, 106.0, 128.0)):
        reach = radius + gap
        for step in range(16):
            angle = step * math.pi / 8
            across, down = math.cos(angle), math.sin(angle)
            # The box touches the ring with its nearest side or corner.
            centre_x = x + across * reach + (width / 2) * max(-1.0, min(1.0, across * 1.6))
            centre_y = y + down * reach + (height / 2) * max(-1.0, min(1.0, down * 1.6))
            box = Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
            preference = (0.0, 3.0, 2.0, 3.0, 1.0, 3.0, 2.0, 3.0)[step % 16 // 2] + (0.5 if step % 2 else 0.0)
            boxes.append((box, preference + ring * 14.0))
    return boxes

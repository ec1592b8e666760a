"""Turning bonds in one compiled pass: what `Rotors.turned` does, without a hundred small tensor operations."""

__all__ = ["turn_all"]

import math
from typing import no_type_check

from studio.problems.mmff_fused import compiled


@compiled
@no_type_check
def turn_all(positions, atoms, moved, turns):
    """Turn each rotor of each geometry in place, by radians, about its bond (positions (n, a, 3), turns (n, t))."""
    count, size, _ = positions.shape
    for b in range(count):
        x = positions[b]
        for t in range(len(atoms)):
            start, end = atoms[t, 1], atoms[t, 2]
            ax, ay, az = x[end, 0] - x[start, 0], x[end, 1] - x[start, 1], x[end, 2] - x[start, 2]
            length = 1.0 / math.sqrt(ax * ax + ay * ay + az * az)
            ax, ay, az = ax * length, ay * length, az * length
            cos, sin = math.cos(turns[b, t]), math.sin(turns[b, t])
            px, py, pz = x[end, 0], x[end, 1], x[end, 2]
            for a in range(size):
                if moved[t, a]:
                    vx, vy, vz = x[a, 0] - px, x[a, 1] - py, x[a, 2] - pz
                    along = (1.0 - cos) * (ax * vx + ay * vy + az * vz)
                    x[a, 0] = px + cos * vx + sin * (ay * vz - az * vy) + along * ax
                    x[a, 1] = py + cos * vy + sin * (az * vx - ax * vz) + along * ay
                    x[a, 2] = pz + cos * vz + sin * (ax * vy - ay * vx) + along * az

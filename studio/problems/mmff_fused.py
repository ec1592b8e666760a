"""The whole of MMFF94 in one compiled pass over a molecule: energies and gradients of many conformers on a processor.

A graph of sixty tensor operations spends its time on being sixty operations. Here each conformer's interactions are
visited once, atoms stay in the cache, and the pairs, which are nine tenths of the work, run in the processor's vector
units: atom i meets all atoms after it in one straight loop without a branch or an index, as their constants stand in
the rows of full matrices (0 for pairs that do not interact). `studio.problems.mmff` has the same formulas as tensors.
"""

__all__ = ["FusedTerms", "between", "compiled", "cross", "fused", "fused_terms"]

import math
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np

from studio.problems.mmff_terms import BUFFER_CHARGE, COULOMB, CUBIC, UNIT, MMFFTerms, rest_lengths

SMALLEST = 1e-8


class FusedTerms(NamedTuple):
    """A molecule's interactions as the compiled pass reads them, see `MMFFTerms`; one place an atom or a pair."""

    radius: np.ndarray
    epsilon: np.ndarray
    charge: np.ndarray
    bonds: np.ndarray
    bond_constants: np.ndarray
    angles: np.ndarray
    angle_constants: np.ndarray
    straight: np.ndarray
    planes: np.ndarray
    plane_constants: np.ndarray
    torsions: np.ndarray
    torsion_constants: np.ndarray


def fused_terms(terms: MMFFTerms) -> FusedTerms:
    """Return the interactions as the compiled pass reads them, constants in kcal/mol, angstrom and radians.

    An angle has six: half the bending constant, the angle, two stretch-bend constants, two lengths at rest.
    """
    n = terms.atoms
    first, second = terms.pairs.T
    matrices = np.zeros((3, n, n))
    matrices[0] = 1.0
    matrices[0][first, second] = 1 / terms.pair_constants[:, 0]
    matrices[1][first, second] = terms.pair_constants[:, 1]
    matrices[2][first, second] = COULOMB * terms.pair_constants[:, 2]
    bend = terms.angle_constants * (0.5 * UNIT, math.pi / 180)
    radius, epsilon, charge = matrices
    return FusedTerms(
        radius, epsilon, charge,
        terms.bonds, terms.bond_constants * (0.5 * UNIT, 1.0),
        terms.angles, np.column_stack([bend, UNIT * terms.stretch_bend, rest_lengths(terms)]), terms.straight,
        terms.out_of_plane, 0.5 * UNIT * terms.out_of_plane_constants,
        terms.torsions, 0.5 * terms.torsion_constants,
    )  # fmt: skip


def fused(terms: FusedTerms, positions: np.ndarray, energies: np.ndarray, gradients: np.ndarray) -> None:
    """Write the energies (n,) in kcal/mol and gradients (n, a, 3) in kcal/mol/angstrom of positions (n, a, 3)."""
    _all_terms(positions, terms, energies, gradients)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is compiled at its first call, and kept on disk where there is a place for it."""
    # No fast mathematics: it would leave the order of a sum to the compiler, which chooses anew with every cache.
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **how)(function)
    except RuntimeError:
        return numba.njit(**how)(function)


@compiled
@no_type_check
def _all_terms(positions, terms, energies, gradients):
    count, atoms, _ = positions.shape
    x, g, scratch = np.empty((3, atoms)), np.empty((3, atoms)), np.empty((4, atoms))
    for b in range(count):
        for a in range(atoms):
            for d in range(3):
                x[d, a] = positions[b, a, d]
                g[d, a] = 0.0
        energy = _pairs(x, g, scratch, terms.radius, terms.epsilon, terms.charge)
        energy += _bonds(x, g, terms.bonds, terms.bond_constants)
        energy += _angles(x, g, terms.angles, terms.angle_constants, terms.straight)
        energy += _planes(x, g, terms.planes, terms.plane_constants)
        energy += _torsions(x, g, terms.torsions, terms.torsion_constants)
        energies[b] = energy
        for a in range(atoms):
            for d in range(3):
                gradients[b, a, d] = g[d, a]


@compiled
@no_type_check
def _pairs(x, g, scratch, radius, epsilon, charge):
    """Buffered 14-7 and buffered Coulomb terms of each atom with all after it.

    What runs in vectors has no sum in it: pushes are written down for one atom's partners, energies added up a partner,
    and only then summed, in order.
    """
    xs, ys, zs = x[0], x[1], x[2]
    gx, gy, gz = g[0], g[1], g[2]
    fx, fy, fz, parts = scratch[0], scratch[1], scratch[2], scratch[3]
    atoms = len(xs)
    for j in range(atoms):
        parts[j] = 0.0
    for i in range(atoms - 1):
        xi, yi, zi = xs[i], ys[i], zs[i]
        r_i, e_i, q_i = radius[i], epsilon[i], charge[i]
        for j in range(i + 1, atoms):
            dx, dy, dz = xi - xs[j], yi - ys[j], zi - zs[j]
            r = math.sqrt(dx * dx + dy * dy + dz * dz)
            rho = r * r_i[j]
            rho3 = rho * rho * rho
            rho6 = rho3 * rho3
            u, v, w = rho + 0.07, rho6 * rho + 0.12, r + BUFFER_CHARGE
            # One division for four: the reciprocal of the product.
            uv, wr = u * v, w * r
            all_four = 1.0 / (uv * wr)
            t, q = 1.07 * all_four * v * wr, all_four * u * wr
            c, per_r = all_four * uv * r, all_four * uv * w
            t3 = t * t * t
            t7 = t3 * t3 * t * e_i[j]
            well = 1.12 * q - 2.0
            coulomb = q_i[j] * c
            parts[j] += t7 * well + coulomb
            slope = -7.0 * r_i[j] * t7 * (well * t * (1.0 / 1.07) + 1.12 * rho6 * q * q) - coulomb * c
            push = slope * per_r
            fx[j] = push * dx
            fy[j] = push * dy
            fz[j] = push * dz
        for j in range(i + 1, atoms):
            gx[j] -= fx[j]
            gy[j] -= fy[j]
            gz[j] -= fz[j]
        sx, sy, sz = 0.0, 0.0, 0.0
        for j in range(i + 1, atoms):
            sx += fx[j]
            sy += fy[j]
            sz += fz[j]
        gx[i] += sx
        gy[i] += sy
        gz[i] += sz
    energy = 0.0
    for j in range(atoms):
        energy += parts[j]
    return energy


@compiled
@no_type_check
def _bonds(x, g, bonds, constants):
    energy = 0.0
    for p in range(len(bonds)):
        i, j = bonds[p, 0], bonds[p, 1]
        dx, dy, dz = between(x, i, j)
        r = math.sqrt(dx * dx + dy * dy + dz * dz)
        k, d = constants[p, 0], r - constants[p, 1]
        energy += k * d * d * (1.0 - 2.0 * d + 7.0 / 3.0 * d * d)
        f = k * d * (2.0 - 6.0 * d + 28.0 / 3.0 * d * d) / r
        _add(g, i, f * dx, f * dy, f * dz)
        _add(g, j, -f * dx, -f * dy, -f * dz)
    return energy


@compiled
@no_type_check
def _angles(x, g, angles, constants, straight):
    """Bending and stretch-bending of each angle i-j-k, or 143.9325 k_a (1 + cos theta) at a straight centre."""
    energy = 0.0
    for p in range(len(angles)):
        i, j, k = angles[p, 0], angles[p, 1], angles[p, 2]
        ux, uy, uz = between(x, i, j)
        vx, vy, vz = between(x, k, j)
        u, v = math.sqrt(ux * ux + uy * uy + uz * uz), math.sqrt(vx * vx + vy * vy + vz * vz)
        pu, pv = 1.0 / u, 1.0 / v
        cos = min(1.0, max(-1.0, (ux * vx + uy * vy + uz * vz) * pu * pv))
        ka = constants[p, 0]
        if straight[p]:
            energy += 2.0 * ka * (1.0 + cos)
            slope, along_u, along_v = 2.0 * ka, 0.0, 0.0
        else:
            bend = math.acos(cos) - constants[p, 1]
            stretch = constants[p, 2] * (u - constants[p, 4]) + constants[p, 3] * (v - constants[p, 5])
            energy += (ka * bend * (1.0 - CUBIC * bend) + stretch) * bend
            sin = math.sqrt(max(1.0 - cos * cos, SMALLEST * SMALLEST))
            slope = -(ka * bend * (2.0 - 3.0 * CUBIC * bend) + stretch) / sin
            along_u, along_v = constants[p, 2] * bend * pu, constants[p, 3] * bend * pv
        across = slope * pu * pv
        along_u -= slope * cos * pu * pu
        along_v -= slope * cos * pv * pv
        ax, ay, az = across * vx + along_u * ux, across * vy + along_u * uy, across * vz + along_u * uz
        bx, by, bz = across * ux + along_v * vx, across * uy + along_v * vy, across * uz + along_v * vz
        _add(g, i, ax, ay, az)
        _add(g, k, bx, by, bz)
        _add(g, j, -ax - bx, -ay - by, -az - bz)
    return energy


@compiled
@no_type_check
def _planes(x, g, planes, constants):
    """Out-of-plane bending: the Wilson angle between the bond j-l and the plane i-j-k."""
    energy = 0.0
    for p in range(len(planes)):
        i, j, k, end = planes[p, 0], planes[p, 1], planes[p, 2], planes[p, 3]
        ux, uy, uz = between(x, i, j)
        vx, vy, vz = between(x, k, j)
        wx, wy, wz = between(x, end, j)
        nx, ny, nz = cross(ux, uy, uz, vx, vy, vz)
        pn = 1.0 / math.sqrt(max(nx * nx + ny * ny + nz * nz, SMALLEST * SMALLEST))
        pw = 1.0 / math.sqrt(wx * wx + wy * wy + wz * wz)
        nx, ny, nz = nx * pn, ny * pn, nz * pn
        wx, wy, wz = wx * pw, wy * pw, wz * pw
        sin = min(1.0, max(-1.0, nx * wx + ny * wy + nz * wz))
        chi = math.asin(sin)
        energy += constants[p] * chi * chi
        slope = 2.0 * constants[p] * chi / math.sqrt(max(1.0 - sin * sin, SMALLEST * SMALLEST))
        a, b = slope * pw, slope * pn
        lx, ly, lz = a * (nx - sin * wx), a * (ny - sin * wy), a * (nz - sin * wz)
        mx, my, mz = b * (wx - sin * nx), b * (wy - sin * ny), b * (wz - sin * nz)
        ix, iy, iz = cross(vx, vy, vz, mx, my, mz)
        kx, ky, kz = cross(mx, my, mz, ux, uy, uz)
        _add(g, i, ix, iy, iz)
        _add(g, k, kx, ky, kz)
        _add(g, end, lx, ly, lz)
        _add(g, j, -ix - kx - lx, -iy - ky - ly, -iz - kz - lz)
    return energy


@compiled
@no_type_check
def _torsions(x, g, torsions, constants):
    """Torsions through cos w alone: cos 2w and cos 3w are polynomials of it, and no angle is ever taken."""
    energy = 0.0
    for p in range(len(torsions)):
        i, j, k, end = torsions[p, 0], torsions[p, 1], torsions[p, 2], torsions[p, 3]
        fx, fy, fz = between(x, i, j)
        cx, cy, cz = between(x, j, k)
        hx, hy, hz = between(x, end, k)
        ax, ay, az = cross(fx, fy, fz, cx, cy, cz)
        bx, by, bz = cross(hx, hy, hz, cx, cy, cz)
        pa = 1.0 / math.sqrt(max(ax * ax + ay * ay + az * az, SMALLEST * SMALLEST))
        pb = 1.0 / math.sqrt(max(bx * bx + by * by + bz * bz, SMALLEST * SMALLEST))
        ax, ay, az = ax * pa, ay * pa, az * pa
        bx, by, bz = bx * pb, by * pb, bz * pb
        cos = ax * bx + ay * by + az * bz
        v1, v2, v3 = constants[p, 0], constants[p, 1], constants[p, 2]
        energy += v1 * (1.0 + cos) + v2 * (2.0 - 2.0 * cos * cos) + v3 * (1.0 + cos * (4.0 * cos * cos - 3.0))
        slope = v1 - 4.0 * v2 * cos + v3 * (12.0 * cos * cos - 3.0)
        ka, kb = slope * pa, slope * pb
        px, py, pz = ka * (bx - cos * ax), ka * (by - cos * ay), ka * (bz - cos * az)
        qx, qy, qz = kb * (ax - cos * bx), kb * (ay - cos * by), kb * (az - cos * bz)
        ix, iy, iz = cross(cx, cy, cz, px, py, pz)
        lx, ly, lz = cross(cx, cy, cz, qx, qy, qz)
        mx, my, mz = cross(px, py, pz, fx, fy, fz)
        ox, oy, oz = cross(qx, qy, qz, hx, hy, hz)
        mx, my, mz = mx + ox, my + oy, mz + oz
        _add(g, i, ix, iy, iz)
        _add(g, end, lx, ly, lz)
        _add(g, j, mx - ix, my - iy, mz - iz)
        _add(g, k, -mx - lx, -my - ly, -mz - lz)
    return energy


@compiled
@no_type_check
def between(x, i, j):
    """Return the vector from atom j to atom i, its three components."""
    return x[0, i] - x[0, j], x[1, i] - x[1, j], x[2, i] - x[2, j]


@compiled
@no_type_check
def cross(ax, ay, az, bx, by, bz):
    """Return the components of the product of two vectors."""
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@compiled
@no_type_check
def _add(g, i, dx, dy, dz):
    g[0, i] += dx
    g[1, i] += dy
    g[2, i] += dz

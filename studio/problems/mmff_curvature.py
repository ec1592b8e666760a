"""A positive curvature of MMFF94 for preconditioning: which directions of a molecule are stiff, and how stiff.

    H = ridge I + sum_t max(k_t, low) grad q_t grad q_t^T,    k_t the second derivative of term t in its own coordinate

over bonds, angles, out-of-plane angles, torsions and pairs (Gauss-Newton: what bends the coordinates themselves is left
out, so H has no negative direction). Bonds are a thousand times stiffer than torsions; in this metric they are not, and
a minimisation takes a tenth of the steps. Compiled, and on the processor: it is wanted once in many steps.
"""

__all__ = ["curvature"]

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float

from studio.problems.mmff_fused import SMALLEST, FusedTerms, between, compiled, cross
from studio.problems.mmff_terms import BUFFER_CHARGE

# kcal/mol/angstrom^2, kcal/mol/rad^2
RIDGE = 2.0
SOFTEST_TORSION = 0.3
FLATTEST = 0.1


def curvature(terms: FusedTerms, positions: Float[np.ndarray, "n a 3"]) -> Float[np.ndarray, "n d d"]:
    """Return H of each conformer in kcal/mol/angstrom^2, d = 3 a, the coordinates in the order of `positions`."""
    count, atoms, _ = positions.shape
    found = np.zeros((count, 3 * atoms, 3 * atoms))
    _all_curvatures(positions, terms, found)
    return found


@compiled
@no_type_check
def _all_curvatures(positions, terms, found):
    count, atoms, _ = positions.shape
    x, v, at = np.empty((3, atoms)), np.empty((4, 3)), np.empty(4, np.int64)
    for b in range(count):
        for a in range(atoms):
            for d in range(3):
                x[d, a] = positions[b, a, d]
        h = found[b]
        for d in range(3 * atoms):
            h[d, d] = RIDGE
        _pairs(x, h, v, at, terms.radius, terms.epsilon, terms.charge)
        _bonds(x, h, v, at, terms.bonds, terms.bond_constants)
        _angles(x, h, v, at, terms.angles, terms.angle_constants)
        _planes(x, h, v, at, terms.planes, terms.plane_constants)
        _torsions(x, h, v, at, terms.torsions, terms.torsion_constants)


@compiled
@no_type_check
def _pairs(x, h, v, at, radius, epsilon, charge):
    """Pairs too close for their van der Waals and Coulomb terms together to be hollow; the others add nothing."""
    atoms = x.shape[1]
    for i in range(atoms - 1):
        for j in range(i + 1, atoms):
            if epsilon[i, j] == 0.0:
                continue
            dx, dy, dz = between(x, i, j)
            r = math.sqrt(dx * dx + dy * dy + dz * dz)
            rho, per = r * radius[i, j], radius[i, j]
            t = 1.07 / (rho + 0.07)
            p5 = rho**5
            p6 = p5 * rho
            q = 1.0 / (p6 * rho + 0.12)
            well = 1.12 * q - 2.0
            well_1 = -1.12 * 7.0 * p6 * q * q
            well_2 = -1.12 * (42.0 * p5 - 98.0 * p6 * p6 * q) * q * q
            t7 = t**7
            bend = t7 * (56.0 * t * t / (1.07 * 1.07) * well - 14.0 * t / 1.07 * well_1 + well_2)
            k = epsilon[i, j] * per * per * bend + 2.0 * charge[i, j] / (r + BUFFER_CHARGE) ** 3
            if k > 0.0:
                _pull(h, v, at, i, j, dx / r, dy / r, dz / r, k)


@compiled
@no_type_check
def _bonds(x, h, v, at, bonds, constants):
    for p in range(len(bonds)):
        i, j = bonds[p, 0], bonds[p, 1]
        dx, dy, dz = between(x, i, j)
        r = math.sqrt(dx * dx + dy * dy + dz * dz)
        d = r - constants[p, 1]
        k = 2.0 * constants[p, 0] * max(FLATTEST, 1.0 - 6.0 * d + 14.0 * d * d)
        _pull(h, v, at, i, j, dx / r, dy / r, dz / r, k)


@compiled
@no_type_check
def _angles(x, h, v, at, angles, constants):
    for p in range(len(angles)):
        i, j, k = angles[p, 0], angles[p, 1], angles[p, 2]
        u, w = between(x, i, j), between(x, k, j)
        lu = math.sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
        lw = math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
        cos = (u[0] * w[0] + u[1] * w[1] + u[2] * w[2]) / (lu * lw)
        sin = math.sqrt(max(1.0 - cos * cos, FLATTEST * FLATTEST))
        for d in range(3):
            v[0, d] = (cos * u[d] / lu - w[d] / lw) / (lu * sin)
            v[2, d] = (cos * w[d] / lw - u[d] / lu) / (lw * sin)
            v[1, d] = -v[0, d] - v[2, d]
        at[0], at[1], at[2] = i, j, k
        _outer(h, v, at, 3, 2.0 * constants[p, 0])


@compiled
@no_type_check
def _planes(x, h, v, at, planes, constants):
    for p in range(len(planes)):
        i, j, k, end = planes[p, 0], planes[p, 1], planes[p, 2], planes[p, 3]
        u, w, o = between(x, i, j), between(x, k, j), between(x, end, j)
        n = cross(u[0], u[1], u[2], w[0], w[1], w[2])
        ln = math.sqrt(max(n[0] * n[0] + n[1] * n[1] + n[2] * n[2], SMALLEST))
        lo = math.sqrt(o[0] * o[0] + o[1] * o[1] + o[2] * o[2])
        sin = (n[0] * o[0] + n[1] * o[1] + n[2] * o[2]) / (ln * lo)
        mx = (o[0] / lo - sin * n[0] / ln) / ln
        my = (o[1] / lo - sin * n[1] / ln) / ln
        mz = (o[2] / lo - sin * n[2] / ln) / ln
        first, third = cross(w[0], w[1], w[2], mx, my, mz), cross(mx, my, mz, u[0], u[1], u[2])
        for d in range(3):
            v[0, d], v[2, d] = first[d], third[d]
            v[3, d] = (n[d] / ln - sin * o[d] / lo) / lo
            v[1, d] = -v[0, d] - v[2, d] - v[3, d]
        at[0], at[1], at[2], at[3] = i, j, k, end
        _outer(h, v, at, 4, 2.0 * constants[p] / max(1.0 - sin * sin, FLATTEST))


@compiled
@no_type_check
def _torsions(x, h, v, at, torsions, constants):
    for p in range(len(torsions)):
        i, j, k, end = torsions[p, 0], torsions[p, 1], torsions[p, 2], torsions[p, 3]
        f, c, o = between(x, i, j), between(x, j, k), between(x, end, k)
        a = cross(f[0], f[1], f[2], c[0], c[1], c[2])
        b = cross(o[0], o[1], o[2], c[0], c[1], c[2])
        lc = math.sqrt(c[0] * c[0] + c[1] * c[1] + c[2] * c[2])
        a2 = max(a[0] * a[0] + a[1] * a[1] + a[2] * a[2], FLATTEST)
        b2 = max(b[0] * b[0] + b[1] * b[1] + b[2] * b[2], FLATTEST)
        cos = min(1.0, max(-1.0, (a[0] * b[0] + a[1] * b[1] + a[2] * b[2]) / math.sqrt(a2 * b2)))
        twice, thrice = 2.0 * cos * cos - 1.0, cos * (4.0 * cos * cos - 3.0)
        bend = -constants[p, 0] * cos + 4.0 * constants[p, 1] * twice - 9.0 * constants[p, 2] * thrice
        fc = (f[0] * c[0] + f[1] * c[1] + f[2] * c[2]) / (a2 * lc)
        oc = (o[0] * c[0] + o[1] * c[1] + o[2] * c[2]) / (b2 * lc)
        for d in range(3):
            v[0, d], v[3, d] = -lc / a2 * a[d], lc / b2 * b[d]
            shift = fc * a[d] - oc * b[d]
            v[1, d], v[2, d] = shift - v[0, d], -shift - v[3, d]
        at[0], at[1], at[2], at[3] = i, j, k, end
        _outer(h, v, at, 4, max(bend, SOFTEST_TORSION))


@compiled
@no_type_check
def _pull(h, v, at, i, j, dx, dy, dz, k):
    v[0, 0], v[0, 1], v[0, 2] = dx, dy, dz
    v[1, 0], v[1, 1], v[1, 2] = -dx, -dy, -dz
    at[0], at[1] = i, j
    _outer(h, v, at, 2, k)


@compiled
@no_type_check
def _outer(h, v, at, count, k):
    """Add k v v^T, v being the slopes of a coordinate at `count` atoms."""
    for p in range(count):
        for q in range(count):
            for a in range(3):
                for b in range(3):
                    h[3 * at[p] + a, 3 * at[q] + b] += k * v[p, a] * v[q, b]

"""The landscape as a GLB: a reader of GLB finds the surface, the points on it, and their colours."""

import io
import json
import struct
import sys

import numpy as np
import pytest
import trimesh

from studio.render.solids import plane_glb
from studio.scenes import Points


def bowl(positions, optimum=((0.0, 0.0),)):
    x, y = np.linspace(-2, 2, 41), np.linspace(-1, 1, 21)
    across, up = np.meshgrid(x, y)
    positions = np.array(positions, dtype=float).reshape(-1, 2)
    return Points(
        positions, np.zeros(len(positions)), x, y, across**2 + 4 * up**2 + across, np.array(optimum).reshape(-1, 2)
    )  # fmt: skip


def read(scene):
    data = plane_glb(scene)
    return data, trimesh.load(io.BytesIO(data), file_type="glb").geometry


def header(data):
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])


def test_the_surface_fills_its_box_and_points_lie_on_it():
    data, parts = read(bowl([(1.0, 0.5), (-1.5, -0.75)]))
    assert set(parts) == {"surface", "points", "optimum"}
    low, high = parts["surface"].bounds
    assert np.allclose(low, [-1, 0, -0.5], atol=1e-6) and np.allclose(high, [1, 0.6, 0.5], atol=1e-6)
    assert parts["points"].body_count == 2 and header(data)["asset"]["version"] == "2.0"
    # y of the plane points away: the point (1, 0.5) is at z = -0.25, and at the height of the surface there.
    centre = next(part.centroid for part in parts["points"].split() if part.centroid[0] > 0)
    assert np.allclose(centre[[0, 2]], [0.5, -0.25], atol=1e-3)
    vertices = parts["surface"].vertices
    below = vertices[np.abs(vertices[:, [0, 2]] - centre[[0, 2]]).sum(axis=1).argmin()]
    assert 0.0 < centre[1] - below[1] < 0.03


def test_normals_point_up_and_colours_are_of_the_vertices_in_linear_light():
    data, parts = read(bowl([(1.0, 0.5)]))
    assert parts["surface"].vertex_normals[:, 1].min() > 0.1
    tree = header(data)
    for mesh in tree["meshes"]:
        (primitive,) = mesh["primitives"]
        assert {"POSITION", "NORMAL", "COLOR_0"} <= set(primitive["attributes"])
        assert tree["materials"][primitive["material"]]["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    colours = {name: part.visual.vertex_attributes["color"] for name, part in parts.items()}
    orange = (((np.array([224, 103, 20]) / 255 + 0.055) / 1.055) ** 2.4 * 255).round()
    assert np.abs(colours["points"][0][:3] - orange).max() <= 1
    assert colours["optimum"][0][1] > 2 * colours["optimum"][0][0], "green"
    heights = parts["surface"].vertices[:, 1]
    assert colours["surface"][heights.argmin()].sum() > colours["surface"][heights.argmax()].sum(), "paler is lower"
    assert all((colour[:, 3] == 255).all() for colour in colours.values())


def test_runaway_points_and_an_unknown_optimum_are_left_out():
    _, parts = read(bowl([(np.nan, 0.0), (np.inf, 0.0), (3.0, 0.0), (1e300, -1e300)], optimum=np.zeros((0, 2))))
    assert set(parts) == {"surface"}


def test_a_flat_loss_and_the_corners_are_no_trouble():
    axis = np.linspace(-1, 1, 5)
    corners = np.array([[-1.0, -1.0], [1.0, 1.0]])
    _, parts = read(Points(corners, np.zeros(2), axis, axis, np.full((5, 5), 3.0), np.zeros((0, 2))))
    assert parts["surface"].bounds[1][1] == 0.0 and parts["points"].body_count == 2


def test_the_same_scene_gives_the_same_bytes():
    assert plane_glb(bowl([(0.1, 0.2)])) == plane_glb(bowl([(0.1, 0.2)]))


def test_without_its_package_a_glb_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ValueError, match="pip install trimesh"):
        plane_glb(bowl([(0.0, 0.0)]))

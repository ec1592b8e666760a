"""Scenes into solids: the loss over the plane as a landscape with the points on it, as a GLB file."""

__all__ = ["plane_glb"]

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from studio.render.raster import GREEN, HIGH, LOW, ORANGE
from studio.scenes import Points

RELIEF = 0.6
POINT, OPTIMUM = 0.03, 0.012
MOST = 240
MATTE = {
    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.85},
    "doubleSided": True,
}


def plane_glb(scene: Points) -> bytes:
    """Return the loss surface with the points as orange spheres and the known optimum set as small green ones.

    The longer side of the window goes from -1 to 1, y is up and logarithmic in the loss, from 0 to 0.6; the plane's
    second axis points away from the viewer. Colours are of the vertices. Points outside the window are left out.
    Raises `ValueError` where the package `trimesh` is missing.
    """
    try:
        import trimesh
        from trimesh.exchange.gltf import export_glb
    except ImportError as error:
        raise ValueError("GLB needs the trimesh package: pip install trimesh") from error
    relief = _relief(scene.heights)
    whole = trimesh.Scene()
    whole.add_geometry(_surface(trimesh, scene, relief), geom_name="surface")
    balls = (("optimum", _thinned(scene.optimum), OPTIMUM, GREEN, 1), ("points", scene.positions, POINT, ORANGE, 2))
    for name, places, radius, colour, fineness in balls:
        centres = _on_surface(scene, relief, places)
        if len(centres):
            ball = trimesh.creation.icosphere(subdivisions=fineness, radius=1.0)
            whole.add_geometry(_spheres(trimesh, ball, centres, radius, np.array(colour, float)), geom_name=name)
    return export_glb(whole, include_normals=True, tree_postprocessor=_matte)


def _relief(heights: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Return the logarithm of the loss above its least value, from 0 to 1."""
    depth = np.log1p(heights - heights.min())
    return depth / max(float(depth.max()), 1e-12)


def _surface(trimesh: Any, scene: Points, relief: Float[np.ndarray, "h w"]) -> Any:
    x, y = np.meshgrid(scene.x, scene.y)
    vertices = _placed(scene, x.ravel(), y.ravel(), relief.ravel())
    height, width = relief.shape
    corner = (np.arange(height - 1)[:, None] * width + np.arange(width - 1)).ravel()
    # Two triangles a cell, counter-clockwise seen from above.
    right, up, both = corner + 1, corner + width, corner + width + 1
    faces = np.concatenate([np.stack([corner, right, both], axis=1), np.stack([corner, both, up], axis=1)])
    colours = LOW + (HIGH - LOW) * relief.reshape(-1, 1)
    return trimesh.Trimesh(vertices, faces, vertex_colors=_linear(colours), process=False)


def _spheres(trimesh: Any, ball: Any, centres: Float[np.ndarray, "n 3"], radius: float, colour: np.ndarray) -> Any:
    """Return a ball at every centre as one mesh; half of it and more looks out of the surface."""
    lifted = centres + np.array([0.0, 0.5 * radius, 0.0])
    vertices = (lifted[:, None] + radius * ball.vertices).reshape(-1, 3)
    offsets = len(ball.vertices) * np.arange(len(centres))
    faces = (offsets[:, None, None] + ball.faces).reshape(-1, 3)
    colours = np.broadcast_to(colour, vertices.shape)
    return trimesh.Trimesh(vertices, faces, vertex_colors=_linear(colours), process=False)


def _on_surface(
    scene: Points, relief: Float[np.ndarray, "h w"], places: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "m 3"]:
    """Return where the places inside the window lie on the surface, by bilinear interpolation."""
    low, high = np.array([scene.x[0], scene.y[0]]), np.array([scene.x[-1], scene.y[-1]])
    inside = ((places >= low) & (places <= high)).all(axis=1)
    x, y = places[inside].T
    columns = np.interp(x, scene.x, np.arange(len(scene.x)))
    rows = np.interp(y, scene.y, np.arange(len(scene.y)))
    left = np.minimum(columns.astype(int), len(scene.x) - 2)
    below = np.minimum(rows.astype(int), len(scene.y) - 2)
    across, up = columns - left, rows - below
    lower = relief[below, left] * (1 - across) + relief[below, left + 1] * across
    upper = relief[below + 1, left] * (1 - across) + relief[below + 1, left + 1] * across
    return _placed(scene, x, y, lower * (1 - up) + upper * up)


def _placed(
    scene: Points, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], relief: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """Return places of the plane in the space of the GLB: to the right, up, and towards the viewer."""
    half = max(scene.x[-1] - scene.x[0], scene.y[-1] - scene.y[0]) / 2
    across = (x - (scene.x[0] + scene.x[-1]) / 2) / half
    away = (y - (scene.y[0] + scene.y[-1]) / 2) / half
    return np.stack([across, RELIEF * relief, -away], axis=1)


def _thinned(places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"]:
    return places[np.unique(np.linspace(0, len(places) - 1, MOST).round().astype(int))] if len(places) else places


def _linear(colours: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 4"]:
    """Return sRGB colours of 0 to 255 as a GLB keeps those of vertices, in linear light, all opaque."""
    share = colours / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.column_stack([255 * light, np.full(len(light), 255.0)]).round().astype(np.uint8)


def _matte(tree: Any) -> None:
    """Give every mesh one plain material: without any, a viewer takes dark metal seen from one side."""
    tree["materials"] = [MATTE]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0

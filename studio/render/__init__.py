"""Scenes into bytes and figures: PNG rasters and Plotly charts."""

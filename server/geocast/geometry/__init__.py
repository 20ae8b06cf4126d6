"""Geometry on the sphere: distances and cells, polygons, and the areas that are published.

sphere             coordinates, distances, H3 cells (the only module that imports h3)
spherical_polygon  who is inside a polygon, and its area
published_polygon  what a requested polygon is published as
polygon_union      many polygons as few, without holes
coarse_cover       few coarse shapes that cover many others
lazy_shapely       the library shapely, imported at its first use
"""

"""Geometry on the sphere: distances and cells, polygons, and the areas that are published.

sphere             coordinates, distances, H3 cells (the only module that imports h3)
spherical_polygon  which places are inside a polygon, and the polygon's area
published_polygon  requested polygons and the polygons that are published for them
polygon_union      many polygons joined into few, without holes
coarse_cover       few coarse shapes that cover many others
lazy_shapely       the library shapely, imported at its first use
"""

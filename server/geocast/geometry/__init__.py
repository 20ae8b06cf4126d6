"""Geometry on the sphere: distances and cells, polygons, and the areas that are published.

sphere             coordinates, distances, H3 cells (the only module that imports h3)
spherical_polygon  polygons on the sphere: their area, and whether a place is inside
published_polygon  polygons that publishers request, and the polygons that are published for them
polygon_union      the union of many polygons as a few polygons without holes
coarse_cover       a few coarse shapes that together cover many detailed ones
lazy_shapely       the library shapely, imported when it is first used
"""

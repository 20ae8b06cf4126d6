"""The search for places inside an area, for areas that contain a place, and for filters that pass an alert.

place_index   the places of a node's sessions: which of them are inside an area
alert_index   the live areas: which of them contain a place, by circle_index and exact polygons
circle_index  the circles around live areas: which of them contain a place
polygons      places of the index and a polygon
filters       the filters of subscribers
columns       arrays that grow
"""

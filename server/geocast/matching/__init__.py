"""The searches that connect alerts and subscribers: by place, by area, and by the subscribers' filters.

place_index   an index of the places of a node's sessions, which finds the sessions inside an area
alert_index   an index of the areas of live alerts, which finds the areas that contain a place
circle_index  an index of circles, with which alert_index finds the areas that may contain a place
polygons      finds the places in the place index that are inside a polygon
filters       the filters of subscribers; finds those that an alert passes
columns       arrays that can grow
"""

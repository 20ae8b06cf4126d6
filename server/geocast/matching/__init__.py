"""The searches that connect alerts and subscribers: by place, by area, and by the subscribers' filters.

place_index   an index of the places of a node's sessions, which finds the places inside an area
alert_index   an index of live areas, which finds the areas that contain a place
circle_index  an index of circles, which alert_index uses to find the areas that may contain a place
polygons      the test which places of the place index are inside a polygon
filters       the filters of subscribers, and the test which of them an alert passes
columns       arrays that can grow
"""

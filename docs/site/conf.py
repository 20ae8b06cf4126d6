"""The settings of Sphinx for the site that build.py makes. build.py stages the pages in a temporary folder."""

import geocast

project = "geocast"
author = "the authors of geocast"
version = release = geocast.__version__
language = "en"

extensions = ["myst_parser"]
exclude_patterns = ["repository"]  # a symlink to the repository, for links to files that are no pages
myst_heading_anchors = 4
# The documents use the Markdown of GitHub, which has none of these.
myst_disable_syntax = ["myst_block_break", "myst_line_comment", "myst_role", "myst_target"]

html_theme = "furo"
html_title = f"geocast {version}"
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_use_index = False
html_copy_source = False
html_show_sphinx = False
html_favicon = html_logo = "static/icon.svg"
html_sidebars = {
    "**": [
        "sidebar/scroll-start.html",
        "sidebar/brand.html",
        "versions.html",
        "sidebar/search.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}

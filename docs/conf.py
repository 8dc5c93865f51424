"""How Sphinx makes the site out of these pages: `make docs`, then open docs/_build/index.html. It needs no network."""

from yoloprune import __version__

project = "yoloprune"
author = "the yoloprune developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"yoloprune {__version__}"
html_copy_source = False
html_show_sphinx = False

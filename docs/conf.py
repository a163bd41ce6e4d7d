"""Sphinx configuration: ``python -m sphinx docs docs/_build/html``."""

from sktransfer import __version__

project = "sktransfer"
author = "The sktransfer developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
autosummary_generate = True
numpydoc_show_class_members = False
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "scipy": ("https://docs.scipy.org/doc/scipy", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
}
# Without a connection, links to other projects remain text.
suppress_warnings = ["intersphinx.external"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"benchmarks|zoo|real",
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "sktransfer"
html_sidebars = {"**": []}  # the few pages are listed at the top
exclude_patterns = ["_build"]

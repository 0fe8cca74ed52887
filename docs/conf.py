"""Sphinx's settings for the site. `scripts/build_site.py` copies this folder, adds the notebooks and calls Sphinx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parent))
import docstrings  # noqa: E402

project, author, language = "sae_tutorial", "the sae_tutorial authors", "en"
copyright = "the sae_tutorial authors. Text and code under the MIT licence"  # noqa: A001

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "index"
exclude_patterns = ["_build"]

# Notebooks are shown as they were executed: building the site computes nothing.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = True
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

# Docstrings are plain English, not reStructuredText.
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 90

# Furo brings its fonts, icons and scripts along, so that the site works without a network.
html_theme = "furo"
html_title = "sae_tutorial"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["figures.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
html_math_renderer = "mathml"


def math(self: Any, node: nodes.Element) -> None:
    """Formulas are written as MathML, which browsers draw themselves: no script, nothing from the network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(node.astext(), display=display)
    self.body.append(f'<div class="formula">{formula}</div>' if display == "block" else formula)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    app.connect("autodoc-process-docstring", docstrings.to_rest)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

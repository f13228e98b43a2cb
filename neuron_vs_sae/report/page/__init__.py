"""The page: one HTML file that holds its data and draws its own figures."""

from neuron_vs_sae.report.page.document import page, write_page

__all__ = ["page", "write_page"]

"""`report.html`: a result on one page that needs no server and no network."""

from neuron_vs_sae.report.page import page, write_page

__all__ = ["page", "write_page"]

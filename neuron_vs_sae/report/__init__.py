"""Shows, never computes: tables, figures, the page, captions, citations, exports."""

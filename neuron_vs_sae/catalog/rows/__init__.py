"""Rows of text in files and datasets, this project's or another's, and how they become pairs of prompts."""

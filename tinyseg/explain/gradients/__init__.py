"""Gradients checked against differences, and kinks told from mistakes."""

"""A box under the RoI operators: traced, compared, dragged, its gradients, other conventions, and the lab."""

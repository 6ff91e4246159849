"""What a network runs, what that costs, and what its cells see and show."""

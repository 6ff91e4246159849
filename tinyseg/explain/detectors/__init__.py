"""A detector's run on one picture, stage by stage, and where it lost an object."""

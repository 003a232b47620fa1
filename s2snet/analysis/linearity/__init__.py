"""Study `linearity`: why a sum of many small steps is a large one. study.py composes it."""

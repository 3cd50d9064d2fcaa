"""Training: the command lines that start runs, the Lightning module and its surroundings, and an experiment a folder.

May import everything in `utils`; nothing there imports this.
"""

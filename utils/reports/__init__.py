"""What a user looks at: the pictures and numbers of a run, the comparison of all, the tables of a sweep, and the page.

May import everything else in `utils`.
"""

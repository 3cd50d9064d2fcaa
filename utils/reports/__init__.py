"""What a user looks at: pictures and numbers of a run, the comparison of all, the tables of a sweep, and the page."""

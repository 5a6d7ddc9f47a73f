"""The life of a batch file: made, copied, changed, switched on and off, removed, carried elsewhere.

Everything here changes files under `config/`, and only to a state that loads: what is planned is tried on a copy of
the folder first. Git remains the history of the files; the lead store has the history of what ran and who did what.
"""

"""A delivery, step by step; each module is one task of a batch's DAG.

`extract` claims, `render` writes the files, `deliver` sends them to one destination, `settle` closes.
Every step reads where it stands from the lead store, never from Airflow, and may be killed and run again.
After the claim only the frozen configuration counts, whatever the batch file says by then.
"""

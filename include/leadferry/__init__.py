"""Leadferry: scheduled lead delivery on Apache Airflow.

Where things are, from the outside in:

* `dag_factory`, `timetables`, `triggers`: the thin layer that Airflow sees; one DAG per batch file.
* `cli`: the command `leadferry`.
* `doctor`: says why a delivery fails, stage by stage, before it does.
* `watch`: what looks after all batches: missed departures, queues, keys; recovery, retention, reports.
* `delivery`: the use case, step by step: claim, render, deliver, settle.
* `batch`: the batch file: its model, loader, checks and JSON Schema.
* `leads_import`: leads from CSV, NDJSON and Excel files into the store.
* `mapping`: which leads may go (rules, in SQL) and what of them goes (fields and transforms, in polars).
* `formats`, `packing`, `destinations`: one file per format, per way of packing and per destination.
* `store`: PostgreSQL: the queue, the claim, the ledger.
* `schedule`: when a batch departs; pure calendar arithmetic.
* `archive`: where rendered files stay.
* `templates`: the sandboxed Jinja in which names, subjects and bodies are written; `file_names` makes names of files
  that every system takes.
* `states`, `errors`: the words everything else uses.
* `local`: the try-out: an embedded PostgreSQL and receivers that speak the real protocols.
"""

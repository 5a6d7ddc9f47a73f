"""Leads from files into the store: every good line once, every bad line named, nothing on a crash.

* `records`: what a file holds, line by line: CSV, NDJSON, XLSX.
* `load`: one file into one flow, in one transaction.
* `rejects`: the file of lines that could not be loaded.
* `watch`: folders that are looked into again and again.
"""

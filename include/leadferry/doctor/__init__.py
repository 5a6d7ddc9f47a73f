"""What `leadferry doctor` looks at, so that a failed delivery is understood without reading a log.

* `finding`: what is told of each stage.
* `destination`: one destination, from the Airflow connection to a file that is written, renamed and removed.
* `wire`: names, ports, certificates and the mail servers of recipients' domains.
* `credentials`: what the Airflow connections hold, and for how long.
* `home`: the lead store, the archive and Airflow itself.
* `examine`: all of it, for one batch or for all.
"""

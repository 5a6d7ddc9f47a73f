"""The try-out: everything Leadferry talks to, real and on this machine, for `scripts/run` and the tests.

`postgres` is the embedded database; `sftp`, `ftps`, `smtp`, `s3` and `http` are receivers that speak the real protocols;
`runner` starts them together with Airflow, delivers the samples and stops what it started.
"""

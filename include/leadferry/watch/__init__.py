"""What looks after all batches at once: the DAG `leadferry_maintenance` and the commands about the whole account.

* `look`: what is wrong now: batch files and their schedules compared with the lead store. No Airflow is asked,
  since what did not happen in Airflow is what is to be noticed.
* `queues`: what waits, counted also for a batch that never came so far as to take leads.
* `tell`: one alert and one recovery for each incident.
* `recover`: deliveries that nobody works on any more are brought to an end.
* `retire`: files that were kept long enough; what killed processes left behind.
* `status`, `report`: one table of all batches; totals of a span of days.
* `settings`: how often all this is done.
"""

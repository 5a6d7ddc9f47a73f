"""The lead store: PostgreSQL holds the truth; nothing here trusts what Airflow believes.

* `database`: connections, transactions, errors; `tables`: the schema; `migrations`: how it came to be.
* `routing`: new leads into the queues, lot by lot.  * `claim`: waiting leads into a delivery.  * `leads`: streaming them out.
* `ledger`: deliveries, files, dispatches, attempts and their moves.  * `history`: what people ask about them.
"""

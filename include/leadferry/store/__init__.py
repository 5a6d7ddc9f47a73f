"""The lead store: PostgreSQL holds the truth; nothing here trusts what Airflow believes.

* `database`: connections, transactions, errors; `tables`: the schema; `migrations`: how it came to be.
* `queue`: routing and the claim.  * `leads`: streaming claimed leads out.
* `ledger`: deliveries, files, dispatches, attempts and their moves.  * `history`: what people ask about them.
"""

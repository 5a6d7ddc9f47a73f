"""Which leads may go, decided in SQL (`rules`), and what of them goes, a column at a time (`fields`, `transforms`)."""

"""The first schema: leads, queues, the ledger, and the triggers that keep its invariants."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Past SQLAlchemy, which would take the `%` of RAISE for placeholders.
    op.get_bind().connection.cursor().execute(statements)


def downgrade() -> None:
    """There is nothing before the first schema; dropping it would lose leads."""
    raise NotImplementedError("drop the schema 'leadferry' by hand if that is what you mean")

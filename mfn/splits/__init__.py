"""From clean events to indexed request rows."""

"""Storage of tables that last for years: retention and tiers, compression, projections, cold queries, maintenance."""

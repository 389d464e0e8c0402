"""Keeps raw personal data out of ClickHouse, whatever producers send.

Each open string of a schema declares its treatment (`pipeline.schema.privacy`). `sanitise` applies it to the columns of
a micro-batch: `user_agents` reduces user agents, `metadata` keeps declared keys and values, `text` applies the `rules`
to free text in its `plain` form. Other values become a keyed hash and a length (`hashing`). See docs/privacy.md.
"""

"""What of a record may rest in ClickHouse: no raw personal data, whatever producers send.

Each open string of a schema declares its treatment (`declared`); `sanitise` applies it to the columns of a micro-batch:
`user_agents` reduces browsers to what they are, `metadata` lets declared keys and values through, `text` takes out what
looks personal (`rules`, in `plain` form). What can't be kept becomes a keyed hash and a length
(`hashing`). See docs/privacy.md.
"""

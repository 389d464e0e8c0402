"""Monitor: looks at the group, the topics, the tables and the dead letters from outside, and shows one model of them.

It is no worker, so it also sees that no worker runs. It writes nothing, joins no group, and needs logins that may only
read. `watch` looks at the servers and makes the model of `state`; `looks` runs its threads; `web`, `metrics` and
`page` show the model.
"""

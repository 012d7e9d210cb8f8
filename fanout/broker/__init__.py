"""The lease service: it alone has the rights to make machines; its tenants lease them under quotas.

What always holds: what is asked of a fleet is in the store before the fleet is called, so machines outlive neither
their lease nor the broker that made them; a quota and what counts against it are read and written in one transaction;
a tenant sees its own leases and nothing else.  Everything here but `quotas`, `offers` and `problems` needs the extra
`fanout[broker]`.
"""

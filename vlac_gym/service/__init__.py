"""A critic as a service: the server (`app`, `server`, `ray_serve`), the wire (`protocol`) and the client (`client`).

`vlac-gym serve` starts a server; `make_critic("http://host:8400")` gives its client.
"""

__all__: list[str] = []

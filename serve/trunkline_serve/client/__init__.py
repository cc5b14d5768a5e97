"""Typed clients: the same calls and results as a model in this process.

`Client` blocks, `AsyncClient` is for asyncio. What they send, read and repeat is one code in
`messages`, `flow`, `retry` and `options`; the two differ in how they wait.
"""

from trunkline.extras import explained

try:
    from trunkline_serve.client.asynchronous import AsyncClient
    from trunkline_serve.client.blocking import Client
    from trunkline_serve.client.messages import AnyDocument, Outcome
    from trunkline_serve.client.options import OPTIONS, Tls
except ModuleNotFoundError as error:
    raise explained(error, "client") from None

__all__ = ["OPTIONS", "AnyDocument", "AsyncClient", "Client", "Outcome", "Tls"]

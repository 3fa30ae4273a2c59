"""Tokens: who sent a request, and what the sender may do.

`making` makes our own. `verifier` takes one from a request and answers with its `claims`: `parts` reads its form, a
`provider` says what it has to be like, and `keys` verify its signature; `jwks` fetches the keys of a provider.
"""

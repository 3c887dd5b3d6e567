"""The page and the HTTP API, in one process that shares one network among all requests.

Needs the extra `web`. `server` holds the state, `app` builds the application, `jobs` runs what is requested,
`static` is the page. What a crystal is and whether it is valid is decided by the packages below.
"""

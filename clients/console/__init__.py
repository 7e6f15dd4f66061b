"""A web page that shows a database to a person on this machine; :mod:`gingham.clients.console.app` makes it."""

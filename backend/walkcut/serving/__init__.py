"""The HTTP server that Label Studio talks to, and the worker that learns from its webhooks."""

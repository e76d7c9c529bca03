"""Routing: which prefill unit takes a request, and which decode worker gets its KV."""

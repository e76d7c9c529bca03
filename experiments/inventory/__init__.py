"""The inventory of a cluster: from a YAML file to servers, and the digest of what runs on them."""

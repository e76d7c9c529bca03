"""The fluid links by the names of their ports. The streams and their rates are in `core/`, in C++."""

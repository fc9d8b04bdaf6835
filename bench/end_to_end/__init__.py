"""``make bench-end-to-end``: from a click and from a publication to lists, the whole system on this machine."""

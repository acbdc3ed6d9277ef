"""Which HyperLock this is: parties of one run have the same."""

VERSION = "0.1.0"

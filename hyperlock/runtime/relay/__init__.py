"""What runs in Flower's environment: the relay at the coordinator's SuperLink, and a site's node.

Nothing here imports HyperLock, and HyperLock imports of it only `frames`: Flower does not install
beside HyperLock's own packages, and what moves messages need not understand them. The folder is a
Flower app (`pyproject.toml`) too; its files import each other as plain modules.
"""

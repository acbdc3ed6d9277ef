"""The parties: client, server, key holder and witness. They meet only in messages."""

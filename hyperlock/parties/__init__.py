"""The parties: client, server and key holder. They meet only in messages."""

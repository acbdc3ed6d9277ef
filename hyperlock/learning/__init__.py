"""Models, local training and server-side optimisers. Knows nothing of encryption."""

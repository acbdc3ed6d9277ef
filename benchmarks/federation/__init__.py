"""What a round costs across organisations: on a slow network, and with many nodes."""

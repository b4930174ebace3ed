"""Loss networks. Their weights are files the user names; nothing is downloaded and nothing is built in."""

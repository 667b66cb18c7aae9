"""Train a private split model: client network, pruner, task head, adversary."""

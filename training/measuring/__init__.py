"""How trained systems are measured and described."""

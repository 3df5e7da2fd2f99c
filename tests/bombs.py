"""What a pickle can do."""


class Bomb:
    """Leaves a file behind when it is read."""

    def __init__(self, leaves: object) -> None:
        self.leaves = str(leaves)

    def __reduce__(self):
        return open, (self.leaves, "w")

"""How far a compressed file's word is taken: on a damaged or hostile one's, memory would be asked for without end."""

__all__ = ["grown_too_far"]

_LARGE = 1 << 28  # bytes that any file may grow to
_MOST_FOLD = 500  # deflate reaches 1030, on nothing but zeros


def grown_too_far(claimed: int, stored: int) -> str | None:
    """Say what is wrong with `claimed` bytes that are to come out of `stored` ones; None where they may.

    Both are of all that is read of a file, as fields that each keep to the limit exceed it together.
    """
    if claimed <= _LARGE or claimed <= _MOST_FOLD * stored:
        return None
    return f"grows from {stored >> 10} kB to {claimed >> 20} MB, as no recording does"

"""Plain tables, and numbers as people say them."""

from collections.abc import Sequence


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as it must be, numbers and words to the left."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    for row in [header, tuple("-" * width for width in widths), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def duration(seconds: float | int) -> str:
    """Say a time in the unit that suits it: "12 s", "3 min", "5 h", "2.5 days"."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}" if seconds / length >= 10 else f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def size(megabytes: float | int) -> str:
    """Say a size: "0.1 MB", "40 MB", "2.5 GB"."""
    if megabytes >= 1024:
        return f"{megabytes / 1024:.1f} GB"
    return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"

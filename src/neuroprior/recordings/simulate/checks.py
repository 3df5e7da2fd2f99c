"""Numbers that a simulation is asked for, each with the range it must lie in."""

from neuroprior.types import InputError


def check(subject: str, *rules: tuple[str, object, bool, str]) -> None:
    """Raise `InputError` for the first rule `(what, value, sound, bound)` that is not sound."""
    for what, value, sound, bound in rules:
        if not sound:
            raise InputError(f"simulated {subject}: {what} is {value}; it must be {bound}")

"""A setting in words: what the ledger, its header and the figures say of an attack's options."""

from dataclasses import fields
from typing import Any


def setting_of(attack: Any, *always: str) -> str:
    """`lr=0.001,steps=100`: the options named, and those that differ from what they are by default."""
    told = []
    for field in fields(attack):
        value = getattr(attack, field.name)
        if field.name in always or value != field.default:
            told.append(f"{field.name}={value:g}")
    return ",".join(told)

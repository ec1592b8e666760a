"""The run-time type checker of the tests: beartype, with int accepted where float is asked, as Python's typing does."""

__all__ = ["checked"]

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

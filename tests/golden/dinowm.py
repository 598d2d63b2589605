"""Kind `dinowm`."""

from tests.golden.cases import Case


def check(case: Case) -> None:
    raise NotImplementedError

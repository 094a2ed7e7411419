"""The one exception that an operation ends with when it cannot be carried out."""

from rollcall_contracts.model import Failure, FailureCode


class OperationFailed(Exception):
    """What was asked for did not succeed; `failure` is what the control plane is told."""

    def __init__(self, code: FailureCode, message: str, target: str | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(code=code, message=message, target=target)

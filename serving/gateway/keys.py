"""Every request's first answer by (account, strategy, key), in the order in which they were given."""

from serving.contracts.decisions import Decision
from serving.contracts.orders import Request

Answers = dict[str, tuple[Request, Decision]]
"""What one strategy asked for one account and was answered, by key."""


class Keys:
    """The day's answers. The dictionary of a strategy can be held and asked without looking it up again."""

    __slots__ = ("_by_strategy", "given")

    def __init__(self) -> None:
        self._by_strategy: dict[tuple[str, str], Answers] = {}
        self.given: list[tuple[Request, Decision]] = []

    def __contains__(self, key: tuple[str, str, str]) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: tuple[str, str, str]) -> tuple[Request, Decision]:
        answer = self.get(key)
        if answer is None:
            raise KeyError(key)
        return answer

    def get(self, key: tuple[str, str, str]) -> tuple[Request, Decision] | None:
        """The request that came first with a key, and its answer; None where none did."""
        answers = self._by_strategy.get((key[0], key[1]))
        return None if answers is None else answers.get(key[2])

    def of(self, account: str, strategy: str) -> Answers:
        """The answers of a strategy for an account."""
        answers = self._by_strategy.get((account, strategy))
        if answers is None:
            answers = self._by_strategy[account, strategy] = {}
        return answers

    def add(self, answers: Answers, request: Request, decision: Decision) -> None:
        """Remember an answer in the dictionary that `of` gave. Raises ValueError where the key has one."""
        answer = (request, decision)
        if answers.setdefault(request.key, answer)[0] is not request:
            raise ValueError(f"key {request.key} was answered before")
        self.given.append(answer)

    def clear(self) -> None:
        """Forget the day."""
        self._by_strategy.clear()
        self.given.clear()

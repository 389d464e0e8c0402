"""The committed state of a partition, as far as the broker has answered."""

from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.micro_batch import State


class CommittedState:
    """State that the broker has, or may have.

    Args:
        state: state that was read from the broker.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.at = float("-inf")
        """Time of the last commit that the broker accepted, by `lease_clock`."""
        self._asked: State | None = None

    def ask(self, state: State) -> None:
        """Note that a commit of a state is on its way to the broker, which may have taken it from now on."""
        self._asked = state

    def accept(self, state: State, now: float) -> None:
        """Note that the broker accepted a state, which was current at that time."""
        self.state, self.at, self._asked = state, now, None

    def names(self, joint_insert: JointInsert | None) -> bool:
        """Tell whether the next owner would read exactly this joint insert, or none.

        It isn't certain while a commit with another one has no answer.
        """
        states = (self.state, self._asked or self.state)
        return all(state.joint_insert == joint_insert for state in states)

"""What it would cost to read a pickle, told from its steps without taking them.

A few hundred bytes can describe a tuple that holds another twice, which holds another twice ...;
as the key of a dict its hash takes longer than anybody waits.
"""

import pickletools
import re
from typing import IO

# A ResNet-152 with its optimizer takes some hundred thousand.
_MOST_STEPS = 5_000_000
_MOST_PARTS = 100_000
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_MARK = 0
# Called with a number they take as much memory as it says; tensors of files are rebuilt by others.
_MAKERS = re.compile(r"(builtins|__builtin__) bytearray|torch(\.cuda)?(\.sparse)? \w*Tensor")


def pickle_fault(stream: IO[bytes]) -> str:
    """Say why a pickle should not be read, in words for brackets; "" if nothing speaks against it.

    Args:
        stream: stands before the pickle, afterwards behind it. What is no pickle is left to those
            who read it, who find out at once.
    """
    parts = _Parts()
    try:
        for number, (step, argument, _) in enumerate(pickletools.genops(stream)):
            parts.take(step, argument)
            if step.name == "GLOBAL" and _MAKERS.fullmatch(str(argument)):
                return f"it calls {argument}, which makes as much as it is told"
            if number > _MOST_STEPS:
                return f"its pickle has more than {_MOST_STEPS:,} steps"
            if parts.most > _MOST_PARTS:
                return f"it holds a tuple of more than {_MOST_PARTS:,} parts"
    except MemoryError:
        return "it claims a value of more bytes than fit into memory"
    except (ValueError, IndexError, KeyError, OverflowError):
        return ""
    return ""


class _Parts:
    """The stack of an unpickler that knows of each value only how many values its tuples hold.

    Attributes:
        most: of any value so far.
    """

    def __init__(self) -> None:
        self.most = 0
        self._stack: list[int] = []
        self._memo: dict[object, int] = {}

    def take(self, step: pickletools.OpcodeInfo, argument: object) -> None:
        """Take one step; raises IndexError or KeyError where no unpickler could."""
        if step.name in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif step.name in _GETS:
            self._push(self._memo[argument])
        elif step.name == "MARK":
            self._stack.append(_MARK)
        else:
            held = self._pop(step.stack_before)
            for _ in step.stack_after:
                self._push(1 + held if step.name in _TUPLES else 1)

    def _push(self, parts: int) -> None:
        self._stack.append(parts)
        self.most = max(self.most, parts)

    def _pop(self, kinds: list) -> int:
        """Take away what a step takes; return how many values that was."""
        held = 0
        for kind in reversed(kinds):
            if kind is pickletools.stackslice:
                while (parts := self._stack.pop()) != _MARK:
                    held += parts
            elif kind is not pickletools.markobject:
                held += self._stack.pop()
        return held

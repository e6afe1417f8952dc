"""How a runtime cuts a graph into the parts that a delegate runs and those that it does not."""

from __future__ import annotations

from collections.abc import Sequence

from segformer_tf.edge.tflite.operations import Operation


def delegated_parts(operations: Sequence[Operation], taken: Sequence[bool]) -> list[list[int]]:
    """The parts that a delegate runs, as numbers of operations.

    As TFLite's `PartitionGraphIntoIndependentNodeSubsets`: it goes through the graph in turns, each of one kind, taken
    or left, and puts every operation into the turn's part whose inputs are ready. So two parts become one where nothing
    between them needs the delegate's results.

    Args:
        operations: in the order they run.
        taken: for each whether the delegate takes it.
    """
    maker = {tensor.index: number for number, op in enumerate(operations) for tensor in op.outputs}
    users: list[list[int]] = [[] for _ in operations]
    missing = [0] * len(operations)
    for number, op in enumerate(operations):
        for needed in {maker[t.index] for t in op.data if maker.get(t.index, number) < number}:
            users[needed].append(number)
            missing[number] += 1
    ready: dict[bool, list[int]] = {True: [], False: []}
    for number, count in enumerate(missing):
        if not count:
            ready[taken[number]].append(number)
    kind = taken[0]
    parts: list[list[int]] = []
    while ready[kind] or ready[not kind]:
        part: list[int] = []
        while ready[kind]:
            number = ready[kind].pop()
            part.append(number)
            for user in users[number]:
                missing[user] -= 1
                if not missing[user]:
                    ready[taken[user]].append(user)
        if kind and part:
            parts.append(sorted(part))
        kind = not kind
    return parts

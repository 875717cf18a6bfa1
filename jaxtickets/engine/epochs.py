"""Which batch comes next: epochs go on from phase to phase, and begin anew where the order does."""

from __future__ import annotations

from collections.abc import Callable

from jaxtickets.engine.feed import DeviceFeed, HostFeed
from jaxtickets.engine.run import Group, Run


def data_at(
    run: Run, group: Group, index: int
) -> tuple[DeviceFeed | HostFeed, Callable[[int], tuple[int, int]]]:
    """The data of phase `index`, and what says the epoch and the batch in it after so many steps.

    The order is another one after a Fork, and where the bag changes. A phase that looks at a batch
    without training takes the one that the training before it would have taken next.
    """
    phases, start = run.plan.phases, group.phases.start
    around = (*reversed(phases[start : index + 1]), *phases[index:])
    bag = next((phase.trains_on for phase in around if phase.trains_on is not None), 1.0)
    others = [i for i in range(start, index) if phases[i].trains_on not in (None, bag)]
    begin = max(others, default=start - 1) + 1
    feed = run.feeds.of(group.keys, group.layout, bag)
    steps = run.steps_before(index) - run.steps_before(begin)
    # Steps that were taken in other orders, as a number of epochs: none of theirs has a higher one.
    used = run.steps_before(begin) - run.steps_before(start)

    def epoch_and_batch(done: int) -> tuple[int, int]:
        epoch, batch = divmod(steps + done, feed.steps_per_epoch)
        return used + epoch, batch

    return feed, epoch_and_batch

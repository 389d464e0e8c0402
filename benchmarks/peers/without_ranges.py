"""Worker that doesn't commit its ranges; the difference to the real worker is the cost of these commits."""

from faust.cli.faust import cli

from pipeline.retry import lease_clock
from pipeline.transport.fetching import Fetching
from pipeline.transport.micro_batch import MicroBatch


async def _at_once(self: Fetching, batches: list[MicroBatch]) -> bool:  # noqa: ARG001 (stands in for a method)
    return True


if __name__ == "__main__":
    Fetching._may_be_delivered = _at_once  # type: ignore[method-assign] # noqa: SLF001 (the benchmark measures without it)
    MicroBatch.committed_at = property(lambda _: lease_clock())  # type: ignore[assignment] # for the check of the lease
    cli()

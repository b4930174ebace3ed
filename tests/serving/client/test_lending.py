"""Who has the shared memory of a client, and what the server is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serving.client.deadline import Deadline
from serving.client.errors import UnavailableError
from serving.client.lending import Lender
from tests.serving.client.conftest import Served, regions


def lend(test: Callable[[Lender, Served], Awaitable[None]]) -> None:
    served = Served()
    asyncio.run(test(Lender(served), served))  # type: ignore[arg-type, func-returns-value]
    assert not regions()


def test_a_region_is_lent_once_and_given_up_when_the_size_changes() -> None:
    async def test(lender: Lender, served: Served) -> None:
        deadline = Deadline(30)
        async with lender.region(12, deadline) as a, lender.region(12, deadline) as b:
            assert a is not b and served.registered == regions() == {a.name, b.name}
        async with lender.region(12, deadline) as again:
            assert again in (a, b)
            # Both are gone at a request of another size, the one in use as it comes back.
            async with lender.region(24, deadline) as larger:
                assert regions() == {again.name, larger.name}
        async with lender.region(24, deadline) as last:
            assert last is larger and regions() == {last.name}
            assert served.registered == {again.name, last.name}
            await lender.close()
            assert not regions() and not served.registered
        # A request that ends after the client was closed does not bring its region back.
        async with lender.region(24, deadline) as new:
            assert new is not last
        await lender.close()

    lend(test)


def test_condemned_regions_leave_no_file_in_use_or_not() -> None:
    async def test(lender: Lender, served: Served) -> None:
        async with lender.region(12, Deadline(30)) as used:
            async with lender.region(12, Deadline(30)):
                pass
            lender.condemn_idle()
            assert regions() == {used.name}
            await lender.close()
            assert not regions() and not served.registered

    lend(test)


def test_what_a_server_that_is_gone_had_mapped_is_gone_with_it() -> None:
    class Gone(Served):
        asked = 0

        async def unregister(self, name: str, deadline: Deadline) -> None:
            self.asked += 1
            raise UnavailableError("no")

    served = Gone()

    async def main() -> None:
        lender = Lender(served)  # type: ignore[arg-type]
        async with lender.region(12, Deadline(30)), lender.region(12, Deadline(30)):
            pass
        await lender.close()
        await lender.close()

    asyncio.run(main())
    assert served.asked == 1 and not regions()


def test_an_interrupted_request_to_forget_is_made_again() -> None:
    async def test(lender: Lender, served: Served) -> None:
        async with lender.region(12, Deadline(30)) as region:
            pass
        told = asyncio.get_running_loop().create_future()
        unregister = served.unregister
        served.unregister = lambda name, deadline: told  # type: ignore[method-assign, assignment, return-value]
        closing = asyncio.create_task(lender.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        served.unregister = unregister  # type: ignore[method-assign]
        assert served.registered == {region.name}
        await lender.close()
        assert not served.registered

    lend(test)

"""`python -m anneal_operator`: read the settings, connect, watch and work until SIGTERM.

In a pod it uses the service account; elsewhere KUBECONFIG, which must be set. Nothing needs saving at the end: whatever
was under way is seen and continued by the next process.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from typing import Any

import aiohttp
import kopf

from anneal_operator import health, logs
from anneal_operator.cluster import Cluster, load_configuration, make_session
from anneal_operator.controller import Controller
from anneal_operator.errors import SettingsError
from anneal_operator.handlers import Freshness, registry_for
from anneal_operator.polling import Poller
from anneal_operator.settings import Settings, load_settings
from anneal_operator.store import Store

log = logging.getLogger("anneal_operator")
ENDING_SECONDS = 15.0


async def run(settings: Settings) -> None:
    """Run until cancelled or told to stop by a signal."""
    configuration = await load_configuration(os.environ)
    async with make_session(configuration) as api, aiohttp.ClientSession() as pods:
        controller = Controller(Store(), Cluster(api, configuration.host), settings)
        freshness = Freshness(controller)

        def watch_session() -> kopf.AiohttpSession:
            session = make_session(configuration, freshness.middleware)
            return kopf.AiohttpSession(server=configuration.host, aiohttp_session=session)

        port = int(os.environ.get("ANNEAL_HTTP_PORT", health.PORT))
        pages = await health.serve(health.application(controller, freshness), port)
        poller = Poller(controller, pods, settings.progress_interval_seconds)
        helpers = [asyncio.create_task(controller.work()), asyncio.create_task(poller.run())]
        log.info("started; trainer image %s, pools: %s", settings.trainer_image, ", ".join(settings.pools) or "none")
        try:
            await _watch(registry_for(controller, freshness, watch_session, end_soon), helpers)
        finally:
            controller.queue.close()
            for helper in helpers:
                helper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*helpers)
            await pages.cleanup()


def end_soon() -> None:
    """End this process within seconds, whatever hangs.

    Kopf ends when a watch fails for good (the kind it watches was removed, say), and may then wait for ever for a task
    of its own. Nothing needs saving, and the next process lists anew: so what no longer watches must not live on.
    """
    timer = threading.Timer(ENDING_SECONDS, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


async def _watch(registry: Any, helpers: list[asyncio.Task[None]]) -> None:
    """Kopf ends on a signal; a helper that ends by itself is a bug, and ends the process too."""
    watching = asyncio.create_task(kopf.operator(registry=registry, clusterwide=True, standalone=True))
    done, _ = await asyncio.wait([watching, *helpers], return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    for task in done:
        task.result()


def main() -> None:
    """The entry point."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(f"anneal operator: {error}")
    logs.configure(settings.log_level)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run(settings))


if __name__ == "__main__":
    main()

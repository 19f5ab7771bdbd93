"""`/healthz` and `/metrics`. A stale watch makes the operator unhealthy: the kubelet restarts it, and it lists anew."""

from aiohttp import web

from anneal_operator import metrics
from anneal_operator.controller import Controller
from anneal_operator.handlers import Freshness

PORT = 8080


def application(controller: Controller, freshness: Freshness) -> web.Application:
    """The two pages."""

    async def healthz(_request: web.Request) -> web.Response:
        if stale := freshness.stale():
            return web.Response(status=503, text=f"no sign of life from the watch of: {', '.join(stale)}\n")
        return web.Response(text="ok\n")

    async def metrics_page(_request: web.Request) -> web.Response:
        jobs = (controller.store.job(key) or {} for key in controller.store.job_keys())
        phases = [(job.get("status") or {}).get("phase", "Pending") for job in jobs]
        page = metrics.exposition(phases, len(controller.queue), freshness.ages())
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics_page)
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Serve until the runner is cleaned up."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner

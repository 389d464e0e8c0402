"""Names of libraries that the worker's process and its web server use; part of `support.private_names`."""

from support.private_name import Name

WORKER_NAMES = [
    Name("mode.worker:Worker.install_signal_handlers", "ignores stray signals", "self"),
    Name(
        "faust.worker:Worker._schedule_shutdown",
        "limits the time of a stop",
        "self signal",
        ("mode.worker:Worker._on_sigterm", "self._schedule_shutdown(signal.SIGTERM)"),
    ),
    Name("faust.worker:Worker.on_setup_root_logger", "leaves the log as it is", "self logger level"),
    Name(
        "faust.app.base:App._new_web",
        "makes our web server",
        "self",
        ("faust.app.base:App", "return self._new_web()"),
    ),
    Name(
        "faust.worker:Worker._flag_as_shutdown_by_signal",
        "stops at SIGHUP and SIGQUIT as at SIGTERM",
        "self",
        ("faust.worker:Worker._on_sigterm", "self._flag_as_shutdown_by_signal()"),
    ),
    Name(
        "faust.web.drivers.aiohttp:Web.start_server",
        "serves sockets that listen already",
        "self",
        ("faust.web.drivers.aiohttp:Web.start_server", "await self._runner.setup()"),
    ),
    Name(
        "faust.web.drivers.aiohttp:Web()._runner",
        "serves the sockets",
        None,
        ("faust.web.drivers.aiohttp:Web.stop_server", "await self._runner.cleanup()"),
    ),
]

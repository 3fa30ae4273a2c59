"""Logs: structlog for our lines, and the same format for those of libraries. No line for each request, no secret."""

from __future__ import annotations

import logging
import sys
from functools import partial

import structlog

from forebay.setting_values import LogFormat


def configure_logs(log_format: LogFormat, level: str, worker: int | None = None) -> None:
    """Set up logging to standard error; `level` is debug, info, warning or error.

    Every line of one of several workers names it, from any thread.
    """
    as_text = log_format is LogFormat.TEXT or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *([] if worker is None else [partial(_name_worker, worker)]),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if as_text
        else [
            # Without the values of variables: some are tokens, or the key.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # uvicorn logs its start, which the server's own lines say better, and every invalid request.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # It logs the text that it signs, which includes the session's token.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _name_worker(
    worker: int, logger: object, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    del logger, method
    line.setdefault("worker", worker)
    return line

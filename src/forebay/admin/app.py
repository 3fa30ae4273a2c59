"""The ASGI application: health, metrics, the description of the interface, and the answer at any other address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from forebay.admin.health import judge_readiness
from forebay.admin.metrics import CONTENT_TYPE, render
from forebay.admin.page import content_security_policy, render_page
from forebay.admin.schemas import Json
from forebay.admin.snapshot import ServerSnapshot
from forebay.errors import Rejection
from forebay.problems import PROBLEM_TYPE, problem
from forebay.tokens.claims import OPERATOR_SCOPES

NOT_STORED = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
"""The address may have a token in it, which is for this one request."""

Collect: TypeAlias = Callable[[], Awaitable[ServerSnapshot]]
"""Asks all workers for their state."""


class Verifier(Protocol):
    """Verifies tokens."""

    def verify(self, authorization: bytes | None, *scopes: str, is_last_try: bool) -> object:
        """Raise `Rejection` unless a valid token has one of the scopes; without scopes any valid token will do."""


class AdminApp:
    """Builds the application.

    Args of the constructor:
        verifier: verifies tokens.
        collect: asks all workers for their state.
        methods: the methods of the addresses that are answered without ASGI.
        describe: makes the description of the interface, when somebody asks for it.
        metrics_open: whether `/metrics` needs no token.
    """

    def __init__(
        self,
        verifier: Verifier,
        collect: Collect,
        methods: Mapping[str, tuple[str, ...]],
        describe: Callable[[], Json],
        *,
        metrics_open: bool,
    ) -> None:
        self._verifier = verifier
        self._collect = collect
        self._methods = methods
        self._describe = describe
        self._metrics_open = metrics_open

    def build(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
            Route("/metrics", self._render_metrics),
            Route("/openapi.json", self._show_document),
            Route("/docs", self._show_page),
        ]
        handlers: dict[Any, Any] = {
            HTTPStatus.NOT_FOUND: self._answer_unknown,
            HTTPException: _answer_http_error,
            Rejection: _answer_rejection,
            HTTPStatus.INTERNAL_SERVER_ERROR: _answer_bug,
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    async def _live(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "alive"})

    async def _ready(self, request: Request) -> Response:
        readiness = judge_readiness(await self._collect())
        body: dict[str, object] = {"status": readiness.status}
        if readiness.causes and self._may_read(request):
            body["causes"] = readiness.causes
        return JSONResponse(
            body, status_code=HTTPStatus.OK if readiness.takes_events else HTTPStatus.SERVICE_UNAVAILABLE
        )

    async def _render_metrics(self, request: Request) -> Response:
        if not self._metrics_open:
            self._verifier.verify(_authorization(request), *OPERATOR_SCOPES, is_last_try=True)
        return Response(render(await self._collect()), media_type=CONTENT_TYPE)

    async def _show_document(self, request: Request) -> Response:
        self._verifier.verify(_find_authorization(request), is_last_try=True)
        return Response(self._document, media_type="application/json", headers=NOT_STORED)

    async def _show_page(self, request: Request) -> Response:
        self._verifier.verify(_find_authorization(request), is_last_try=True)
        policy = content_security_policy(self._page)
        return HTMLResponse(self._page, headers={**NOT_STORED, "Content-Security-Policy": policy})

    # Made once, when somebody asks: a token that ships in an application is enough to ask again and again.

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(self._describe())

    @cached_property
    def _page(self) -> str:
        return render_page(self._describe())

    async def _answer_unknown(self, request: Request, error: HTTPException) -> Response:
        """Answer if no route matches: an event address with a method that it does not take, or an unknown address."""
        del error
        path: str = request.scope["path"]
        methods = self._methods.get(path)
        try:
            if path != "/ping":
                self._verifier.verify(_authorization(request), is_last_try=True)
        except Rejection as rejection:
            return _problem(rejection)
        if methods is None:
            return _problem(Rejection(HTTPStatus.NOT_FOUND, "there is nothing at this address"))
        allowed = ", ".join(methods)
        detail = f"{path} takes {allowed}, not {request.method}"
        return _problem(Rejection(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers=(("Allow", allowed),)))

    def _may_read(self, request: Request) -> bool:
        try:
            self._verifier.verify(_authorization(request), *OPERATOR_SCOPES, is_last_try=True)
        except Rejection:
            return False
        return True


def _authorization(request: Request) -> bytes | None:
    value = request.headers.get("authorization")
    return None if value is None else value.encode("latin-1")


def _find_authorization(request: Request) -> bytes | None:
    """Return the token in the header, or that in the address: a browser that opens a page sends no header of ours."""
    authorization = _authorization(request)
    if authorization is not None or "access_token" not in request.query_params:
        return authorization
    return b"Bearer " + request.query_params["access_token"].encode()


async def _answer_rejection(request: Request, error: Rejection) -> Response:
    del request
    return _problem(error)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    """Answer a request that Starlette itself refuses: an address here does not take the method."""
    is_method = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    detail = f"{request.scope['path']} does not take {request.method}" if is_method else error.detail
    headers = tuple((error.headers or {}).items())
    return _problem(Rejection(error.status_code, detail, headers=headers))


async def _answer_bug(request: Request, error: Exception) -> Response:
    del request, error
    return _problem(Rejection(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed"))


def _problem(error: Rejection) -> Response:
    return Response(
        problem(error.status, error.detail, error.errors),
        status_code=error.status,
        headers=dict(error.headers),
        media_type=PROBLEM_TYPE,
    )

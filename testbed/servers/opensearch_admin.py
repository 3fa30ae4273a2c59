"""Things that an operator does to an OpenSearch, right or wrong."""

import time
from typing import Any, Self

import aiohttp


async def call(url: str, method: str, path: str, body: Any = None) -> Any:
    """Call OpenSearch and return its answer.

    Raises:
        AssertionError: it refused.
    """
    async with aiohttp.ClientSession() as session, session.request(method, url + path, json=body) as response:
        answer = await response.json()
        assert response.status < 300, f"{method} {path}: {answer}"
        return answer


async def put_template(url: str, environment: str, template: dict[str, Any]) -> None:
    """Put a foreign index template in place, for the indices of an environment, over Forebay's."""
    body = {"index_patterns": [f"events_{environment}_*"], "priority": 500, "template": template}
    await call(url, "PUT", _template_path(environment), body)


class Template:
    """A foreign index template, with a higher priority than Forebay's, for the indices of an environment.

    Use as an asynchronous context: it is there within, and gone afterwards.
    """

    def __init__(self, url: str, environment: str, template: dict[str, Any]) -> None:
        self._url = url
        self._environment = environment
        self._template = template

    async def put(self, template: dict[str, Any]) -> None:
        """Replace it."""
        await put_template(self._url, self._environment, template)

    async def __aenter__(self) -> Self:
        await self.put(self._template)
        return self

    async def __aexit__(self, *_: object) -> None:
        await call(self._url, "DELETE", _template_path(self._environment))


class MissingPipeline:
    """An ingest pipeline that the indices of an environment name, without which they take nothing.

    Use as an asynchronous context: it is missing within, and put in place afterwards.
    """

    def __init__(self, url: str, environment: str) -> None:
        self._url = url
        self._indices = f"events_{environment}_*"
        self._name = f"others-{environment}-{time.time_ns()}"

    async def __aenter__(self) -> Self:
        await call(self._url, "PUT", f"/{self._indices}/_settings", {"index.default_pipeline": self._name})
        return self

    async def __aexit__(self, *_: object) -> None:
        await call(self._url, "PUT", f"/_ingest/pipeline/{self._name}", {"processors": []})


def _template_path(environment: str) -> str:
    return f"/_index_template/others-{environment}"

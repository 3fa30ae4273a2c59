"""The description of the interface: valid OpenAPI, whole, and true by the code that it describes."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_schema_validator import oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from forebay.admin.app import AdminApp
from forebay.admin.health import judge_readiness
from forebay.admin.operations import OPERATIONS
from forebay.admin.page import render_page
from forebay.admin.schemas import REFUSALS, Json
from forebay.admin.snapshot import ServerSnapshot
from forebay.description import describe_server
from forebay.errors import FieldError, Rejection
from forebay.intake.formats.batch import EventBatch
from forebay.intake.formats.event import decode_event
from forebay.intake.formats.format import Result
from forebay.intake.formats.lines import EventLines
from forebay.intake.formats.registry import list_addresses
from forebay.intake.formats.single import SingleEvent
from forebay.model import Admission, Event
from forebay.problems import problem


def describe(*paths_extra: str, metrics_open: bool = False) -> Json:
    return describe_server(list_addresses(paths_extra), metrics_open=metrics_open)


EXTRA = ("/c", "/e/x", "/e-x", "/e_x")
DOCUMENT = describe(*EXTRA)
EVENT_PATHS = {path: item["post"] for path, item in DOCUMENT["paths"].items() if "post" in item}

every_event_path = pytest.mark.parametrize("path", EVENT_PATHS)


def is_valid(name: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return not [*Draft202012Validator(schema, format_checker=oas31_format_checker).iter_errors(value)]


# The whole


def test_it_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_it_has_every_address_and_no_other() -> None:
    class NoVerifier:
        def verify(self, *_: object, **__: object) -> None:
            raise AssertionError("nobody asks")

    async def collect() -> ServerSnapshot:
        raise AssertionError("nobody asks")

    events = {path.decode() for path in list_addresses(EXTRA)}
    with_token = {f"/ubi/{{access_token}}{path}" for path in events if path.startswith("/ubi_")}
    assert set(EVENT_PATHS) == events | with_token
    routes = AdminApp(NoVerifier(), collect, {}, describe, metrics_open=False).build().routes
    others = {route.path for route in routes if isinstance(route, Route)} | {"/ping"}
    assert DOCUMENT["paths"].keys() == set(EVENT_PATHS) | others
    assert {"/c", "/c/batch", "/e/x", "/e/x/batch"} <= set(EVENT_PATHS)
    assert "/c" not in describe()["paths"]


def test_an_open_address_of_metrics_asks_for_no_token() -> None:
    assert DOCUMENT["paths"]["/metrics"]["get"]["security"]
    assert describe(metrics_open=True)["paths"]["/metrics"]["get"]["security"] == []
    assert OPERATIONS["/metrics"]["get"]["security"]


# Bodies and examples


@every_event_path
def test_an_event_address_has_each_type_of_body_that_the_registry_has_for_it(path: str) -> None:
    formats = list_addresses(EXTRA)[path.removeprefix("/ubi/{access_token}").encode()]
    content = EVENT_PATHS[path]["requestBody"]["content"]
    assert content.keys() == {form.media_type for form in formats.values()}
    markers = {key.decode() for key in formats if b"/" not in key}
    assert markers <= {parameter.get("name") for parameter in EVENT_PATHS[path]["parameters"]}


@every_event_path
def test_an_example_of_json_is_valid_by_the_schema_beside_it(path: str) -> None:
    described = EVENT_PATHS[path]
    contents = [described["requestBody"]["content"], described["responses"]["200"]["content"]]
    for media in (media for content in contents for media in content.values()):
        schema = {**media["schema"], "components": DOCUMENT["components"]}
        for example in media.get("examples", {}).values():
            Draft202012Validator(schema).validate(example["value"])


# Schemas: what they allow is taken, and what they do not allow is refused

TIMES: list[Any] = ["2026-11-25T10:00:00Z", "2026-11-25t10:00:00.5+01:00", 0, 1.5, None, "", "yesterday", True, [], {}]
TEXTS: list[Any] = ["a", "", None, 1, True, [], {}]
VALUES: dict[str, list[Any]] = {
    "page": TEXTS,
    "event": TEXTS,
    "log_id": TEXTS,
    "label": TEXTS,
    "target": TEXTS,
    "section": TEXTS,
    "param": [{}, [], "a", "", 1, 1.5, True, None],
    "timestamp": TIMES,
    "sent_at": TIMES,
    "anything": [{}, [], "a", "", 1, 1.5, True, None],
}


def is_taken(event: Any) -> bool:
    try:
        decode_event(msgspec.json.encode(event))
    except Rejection:
        return False
    return True


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in VALUES.items() for value in values])
def test_the_schema_of_an_event_allows_exactly_the_fields_that_are_taken(field: str, value: Any) -> None:
    event = {"page": "/home", "event": "click"} | {field: value}
    assert is_valid("Event", event) == is_taken(event)


@pytest.mark.parametrize("event", [{}, {"page": "/"}, {"event": "a"}, [], "a", 1, None, True])
def test_the_schema_of_an_event_asks_for_the_fields_that_are_required(event: Any) -> None:
    assert not is_valid("Event", event)
    assert not is_taken(event)


def test_the_schema_of_an_event_names_every_field() -> None:
    described = DOCUMENT["components"]["schemas"]["Event"]["properties"]
    assert described.keys() == {field.name for field in msgspec.structs.fields(Event)} == VALUES.keys() - {"anything"}
    assert all(field["description"] for field in described.values())


EVENT = {"page": "/home", "event": "click"}


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [EVENT],
        {"events": [EVENT]},
        {"events": [EVENT], "sent_at": 5},
        {"events": [EVENT], "sent_at": "never"},
        {"events": [], "more": 1},
        {"events": 1},
        {},
        5,
        None,
        "a",
    ],
)
def test_the_schema_of_a_batch_allows_exactly_those_that_are_taken(batch: Any) -> None:
    try:
        EventBatch().decode(msgspec.json.encode(batch))
    except Rejection:
        assert not is_valid("Batch", batch)
    else:
        assert is_valid("Batch", batch)


@pytest.mark.parametrize("admission", Admission)
def test_the_answers_are_valid_by_their_schemas(admission: Admission) -> None:
    taken = b'"an id"'
    refused = Rejection(400, "the event is not valid", (FieldError("page", "is required"),))
    results: list[Result] = [taken, refused, Rejection(400, "the event is not JSON")]
    assert is_valid("Taken", json.loads(SingleEvent().answer((0,), results[:1], admission)))
    for form in (EventBatch(), EventLines()):
        assert is_valid("BatchAnswer", json.loads(form.answer((1, 2, 5), results, admission)))


def test_a_refusal_is_valid_by_its_schema() -> None:
    for errors in ((), (FieldError("page", "is required"),)):
        assert is_valid("Problem", json.loads(problem(400, "the event is not valid", errors)))


def test_health_is_valid_by_its_schema() -> None:
    assert is_valid("Health", {"status": judge_readiness(ServerSnapshot(0, {})).status})
    unready = judge_readiness(ServerSnapshot(1, {}))
    assert is_valid("Health", {"status": unready.status, "causes": unready.causes})


# Statuses


@every_event_path
def test_an_event_address_names_every_refusal(path: str) -> None:
    statuses = {"200", *(str(status.value) for status in REFUSALS)}
    assert EVENT_PATHS[path]["responses"].keys() == statuses


def test_too_many_requests_names_when_to_come_back() -> None:
    lines = REFUSALS[HTTPStatus.TOO_MANY_REQUESTS][1]
    assert lines.keys() == {"Retry-After", "RateLimit-Policy", "RateLimit"}
    assert "Retry-After" in REFUSALS[HTTPStatus.SERVICE_UNAVAILABLE][1]


# The page


def test_the_page_has_every_operation_and_schema_once() -> None:
    page = render_page(DOCUMENT)
    ids = re.findall(r"<article id='([^']+)'", page)
    operations = [one["operationId"] for item in DOCUMENT["paths"].values() for one in item.values()]
    assert ids == [*sorted(operations, key=ids.index), *DOCUMENT["components"]["schemas"]]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href='#([^']+)'", page)) <= set(ids)


def test_the_page_escapes_whatever_is_in_the_description() -> None:
    hostile = "<script>alert(1)</script>'&\""
    document = json.loads(json.dumps(DOCUMENT).replace("/c/batch", json.dumps(f"/{hostile}")[1:-1]))
    page = render_page(document)
    assert page.count("</script>") == 1
    assert "/&lt;script&gt;alert(1)&lt;/script&gt;&#x27;&amp;&quot;" in page

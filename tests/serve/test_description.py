"""The API against its own description: requests that schemathesis makes up give no fault of the server."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .conftest import TOKEN
from .test_api import OCTETS, png

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of schemathesis and what it imports
]
BOUNDED = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def attempt(client, operation, film):
    """Send what the description allows, about a film that is there."""
    path = operation.path.replace("{film_id}", film).replace("{result_id}/{file}", "x/record.json")

    @BOUNDED
    @given(case=operation.as_strategy())
    def send(case):
        json = isinstance(case.body, dict | list | str | int | float | bool) or case.body is None
        sent = {"json": case.body} if json else {"content": case.body} if isinstance(case.body, bytes) else {}
        answer = client.request(operation.method.upper(), path, **sent)
        assert answer.status_code < 500, (operation.label, case.body, answer.text)
        assert answer.status_code < 400 or answer.headers["content-type"] == "application/problem+json"

    send()


def test_requests_from_the_description_give_no_fault(app_of, pool):
    from starlette.testclient import TestClient

    with TestClient(app_of(pool), base_url="http://127.0.0.1:8750") as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        film = client.post("/api/films", content=png(), headers=OCTETS).json()["id"]
        found = [
            one.ok() for one in schemathesis.openapi.from_dict(client.get("/openapi.json").json()).get_all_operations()
        ]
        assert len(found) >= 10
        for operation in sorted(found, key=lambda one: one.method.upper() == "DELETE"):  # that at the end
            if operation.method.upper() == "DELETE":
                assert client.delete(f"/api/films/{film}").status_code == 204
            else:
                attempt(client, operation, film)

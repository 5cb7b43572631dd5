"""Application: the page's files and the calls of the API, as FastAPI describes and checks them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, FastAPI, Path, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from textray import __version__
from textray.errors import InputError, TextRayError
from textray.inference.worker import Pool
from textray.io.write import json_text
from textray.serve.guard import Access, Guard
from textray.serve.limits import Limits
from textray.serve.problems import of_error, of_status
from textray.serve.store import Store

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_SWEEP_SECONDS = 30.0
_PROBLEM = {
    "description": "An error: stable `code`, one sentence in `detail`, and the `id` of this answer.",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "code", "detail", "id"],
                "properties": {
                    **{name: {"type": "string"} for name in ("type", "title", "code", "detail", "id")},
                    "status": {"type": "integer"},
                },
            }
        }
    },
}
_FAULTS: dict[int | str, dict[str, Any]] = dict.fromkeys(
    (400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 429, 500, 504), _PROBLEM
)

Side = Literal["patient", "viewer"]
FileName = Literal["record.json", "mask.png", "overlay.png", "picture.png", "seg.dcm", "sr.dcm", "sc.dcm"]
Words = Annotated[str, Field(max_length=64 << 10)]
Name = Annotated[str, Path(min_length=1, max_length=64, description="As an earlier answer gave it.")]


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SegmentOrder(_Order):
    """How to segment a film; all of it may be left out."""

    text: Annotated[Words | None, Field(description="The film's report, or any words that name places.")] = None
    laterality: Annotated[Side, Field(description="Whose left and right the words mean.")] = "patient"
    edit: Annotated[
        Words | None, Field(description="A whole sentence in place of the report that the network writes.")
    ] = None
    text_free: Annotated[
        Literal["generated", "none"] | None,
        Field(description="What a film without words gets: a written report or none."),
    ] = None
    strict_text: Annotated[bool, Field(description="Refuse words that name no zone.")] = False


class GroundOrder(_Order):
    """A phrase to look for."""

    phrase: Words
    laterality: Side = "patient"


class ReportOrder(_Order):
    """A report to understand."""

    text: Words
    laterality: Side = "patient"


class Film(BaseModel):
    """A film that was read; ``id`` names it in further calls."""

    id: str
    width: int
    height: int
    format: str
    sides_from: Literal["tag", "assumed", "undefined"]
    mirrored: Annotated[bool, Field(description="True where the patient's left is on the viewer's right.")]
    notices: list[dict[str, str]]


class Result(BaseModel):
    """A result; ``id`` names it in the addresses of its files."""

    id: str
    record: dict[str, Any]


class Jobs:
    """Work that waits for a free worker, up to a number; a client that leaves gives up its place."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self.pool, self.limits = pool, limits
        self._slots = asyncio.Semaphore(pool.size)
        self._threads = ThreadPoolExecutor(pool.size, thread_name_prefix="textray-job")
        self._waiting = 0

    async def run(self, request: Request, do: str, **order: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401
        """The answer of a worker to an order of `Pool.ask`; raises as that does, or ``E_BUSY``."""
        if self._slots.locked():
            if self._waiting >= self.limits.waiting:
                raise TextRayError("too many films are waiting", do="Try again in a few seconds", code="E_BUSY")
            self._waiting += 1
            try:
                await self._slot(request)
            finally:
                self._waiting -= 1
        else:
            await self._slots.acquire()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, partial(self.pool.ask, do, **order))
        work.add_done_callback(lambda _: self._slots.release())  # also if nobody waits for it any longer
        return await work

    async def _slot(self, request: Request) -> None:
        """Wait for a worker, but no longer than the client does."""
        free, gone = asyncio.ensure_future(self._slots.acquire()), asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({free, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not free.done():
                raise ClientDisconnect
        except BaseException:
            if not free.cancel():
                self._slots.release()
            raise
        finally:
            gone.cancel()

    def close(self) -> None:
        """Begin no further work."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create(pool: Pool, access: Access, limits: Limits | None = None, store: Store | None = None) -> ASGIApp:
    """Build the application around workers, with its guard."""
    limits = limits or Limits()
    store = store or Store(limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.jobs = Jobs(pool, limits)

        async def sweep() -> None:
            while True:
                await asyncio.sleep(_SWEEP_SECONDS)
                store.sweep()

        sweeping = asyncio.create_task(sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            app.state.jobs.close()
            store.close()

    app = FastAPI(
        title="TextRay",
        version=__version__,
        description="Finds lesions in chest films with the help of language. Research only, not for diagnosis.",
        docs_url=None,  # they load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        telemetry={
            "auto_configure": False,
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )
    app.include_router(_api(store, limits))
    _plain(app, pool)

    @app.exception_handler(TextRayError)
    async def refused(_: Request, error: TextRayError) -> Response:
        return of_error(error)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:  # nobody reads it
        return of_status(408)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:  # the guard learns of it too
        return of_error(error)

    @app.exception_handler(HTTPException)
    async def declined(_: Request, error: HTTPException) -> Response:
        return of_status(error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        wrong = [{"at": ".".join(map(str, one["loc"][:4]))[:200], "why": one["type"]} for one in error.errors()[:10]]
        return of_status(422, wrong=wrong)

    return Guard(app, access, limits)


def _plain(app: FastAPI, pool: Pool) -> None:
    """The page's files, and the two calls of machines that watch the server; none needs the token."""
    web = resources.files(__package__) / "web"
    files = {path: ((web / name).read_bytes(), kind) for path, (name, kind) in _PAGE.items()}

    def page(path: str) -> Response:
        content, kind = files[path]
        return Response(content, media_type=kind)

    for path in files:
        app.add_api_route(path, partial(page, path), methods=["GET"], include_in_schema=False, response_model=None)

    @app.get("/live", responses={200: {"description": "The server runs."}})
    async def live() -> dict[str, bool]:
        """Whether the server runs."""
        return {"live": True}

    @app.get("/ready", responses={503: {"description": "No worker has loaded its weights."}})
    async def ready() -> JSONResponse:
        """Whether a worker has loaded its weights."""
        return JSONResponse({"ready": pool.ready}, 200 if pool.ready else 503)


def _api(store: Store, limits: Limits) -> APIRouter:
    api = APIRouter(prefix="/api", dependencies=[Security(HTTPBearer(auto_error=False))], responses=_FAULTS)

    def jobs(request: Request) -> Jobs:
        found: Jobs = request.app.state.jobs
        return found

    @api.get("/info")
    async def info(request: Request) -> dict[str, Any]:
        """Version, weights and limits."""
        weights, _ = await jobs(request).run(request, "about")
        return {"textray": __version__, "weights": weights, "limits": limits.to_dict(), "research_only": True}

    @api.post(
        "/films",
        status_code=201,
        response_model=Film,
        responses={200: {"model": Film, "description": "The film was here already."}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def upload(request: Request) -> Response:
        """Send a film: the body is the file as it is (DICOM, PNG, JPEG, TIFF, BMP, JPEG 2000)."""
        kind = request.headers.get("content-type", "")
        if kind.lower().startswith("multipart/") or "content-encoding" in request.headers:
            do = "Send the bytes of the file as the body, as curl --data-binary does"
            raise InputError("the body is no file", expected="application/octet-stream", do=do, code="E_CONTENT")
        async with store.receive(request.stream()) as came:
            film, status = store.known(came.sha256), 200
            if film is None:
                facts, _ = await jobs(request).run(request, "read", film=str(came.path))
                film = store.known(came.sha256)  # another upload of the same bytes may have been faster
            if film is None:
                film, status = store.keep(came, facts), 201
        return JSONResponse({"id": film.id, **film.facts}, status)

    @api.post("/films/{film_id}/segment", response_model=Result)
    async def segment(
        request: Request, film_id: Name, order: Annotated[SegmentOrder | None, Body()] = None
    ) -> Response:
        """Find the lesions in a film."""
        film, wanted = store.film(film_id), (order or SegmentOrder()).model_dump()
        result = store.result_of(film, wanted)
        if result is None:
            head, mask = await jobs(request).run(request, "segment", film=str(film.path), settings=wanted)
            result = store.result_of(film, wanted) or store.keep_result(film, wanted, head["record"], mask)
        return JSONResponse({"id": result.id, "record": result.record})

    @api.get("/films/{film_id}/picture.png", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    async def picture(request: Request, film_id: Name) -> Response:
        """The film for display: its greys, bright where dense, at most 2,048 pixels long."""
        film = store.film(film_id)
        _, png = await jobs(request).run(request, "picture", film=str(film.path))
        return Response(png, media_type="image/png")

    @api.post("/films/{film_id}/ground")
    async def ground(request: Request, film_id: Name, order: GroundOrder) -> dict[str, Any]:
        """Show where a phrase fits best: ``map_png`` is a grey PNG in base64, from ``low`` (0) to ``high`` (255)."""
        film = store.film(film_id)
        values, png = await jobs(request).run(request, "ground", film=str(film.path), **order.model_dump())
        return {**values, "map_png": base64.b64encode(png).decode()}

    @api.delete("/films/{film_id}", status_code=204)
    async def delete(film_id: Name) -> None:
        """Remove a film and its results."""
        store.remove(store.film(film_id))

    @api.get(
        "/results/{result_id}/{file}",
        response_class=Response,
        responses={
            200: {"content": {kind: {} for kind in ("image/png", "application/dicom", "application/json")}},
        },
    )
    async def file(request: Request, result_id: Name, file: FileName) -> Response:
        """A file of a result; DICOM objects only of DICOM films that belong to a study."""
        result = store.result(result_id)
        if file == "record.json":
            return Response(json_text(result.record), media_type="application/json")
        content = result.mask
        if file != "mask.png":
            film, wanted = str(result.film.path), result.request
            _, content = await jobs(request).run(request, "file", film=film, settings=wanted, name=file)
        kind = "image/png" if file.endswith(".png") else "application/dicom"
        return Response(content, media_type=kind)

    @api.post("/report")
    async def report(request: Request, order: ReportOrder) -> dict[str, Any]:
        """Show what is understood of a report: the six zones by the viewer's side, and the words not used."""
        values, _ = await jobs(request).run(request, "report", **order.model_dump())
        return values

    return api

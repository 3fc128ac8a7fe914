"""A Kubernetes API server over HTTP for tests: reads, writes, watches, logs and reviews, and a record of every call.

It keeps resource versions, makes names, follows selectors, refuses stale writes (409) and forgotten versions (410),
collects garbage by owner, streams watches over HTTP and over websockets, and may hold callers to RBAC rules.
"""

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fake_kinds import KINDS, VERSION, Kind
from fake_patch import PatchError, apply_patch
from fake_selectors import SelectorError
from fake_store import ApiError, Event, Object, Store, selected
from fake_websocket import Websocket

TOKEN = "test-token"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, order=True)
class Call:
    """One call, in the words of an RBAC rule."""

    verb: str
    group: str
    resource: str  # with its subresource: pods/log
    namespace: str
    name: str = ""

    @property
    def rule(self) -> tuple[str, str, str]:
        """Group, resource and verb."""
        return self.group, self.resource, self.verb


@dataclass
class FakeApi:
    """The server's state, which tests read and change."""

    store: Store = field(default_factory=Store)
    kinds: list[Kind] = field(default_factory=lambda: list(KINDS))
    calls: list[Call] = field(default_factory=list)
    logs: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)  # (namespace, pod, container) to lines
    rules: list[Object] | None = None  # RBAC rules that callers are held to; None allows everything
    faults: list[tuple[str, str, int]] = field(default_factory=list)  # (verb, resource, status) of calls to fail once
    cut_logs_after: int = 0  # lines after which the connection of a log breaks, once
    url: str = ""
    closing: bool = False

    def kind(self, plural: str) -> Kind:
        """The served kind of this plural name."""
        return next(kind for kind in self.kinds if kind.plural == plural)

    def add(self, item: Object, status: Object | None = None) -> Object:
        """Put an object there as somebody else would, outside the record of calls."""
        kind = next(kind for kind in self.kinds if (kind.kind, kind.api_version) == (item["kind"], item["apiVersion"]))
        made = self.store.create(kind, item["metadata"].get("namespace", "") if kind.namespaced else "", item)
        return self.set_status(kind.plural, made, status) if status else made

    def set_status(self, plural: str, item: Object, status: Object) -> Object:
        """Write an object's status, as its controller does."""
        metadata = item["metadata"]
        return self.store.replace(
            self.kind(plural), metadata.get("namespace", ""), metadata["name"], {"status": status}, "status"
        )

    def items(self, plural: str, namespace: str = "") -> list[Object]:
        """All objects of a kind."""
        return self.store.select(self.kind(plural), namespace)

    def log(self, namespace: str, pod: str, container: str, *lines: str) -> None:
        """Let a container write lines."""
        with self.store.changed:
            told = self.logs.setdefault((namespace, pod, container), [])
            told += [f"2026-11-24T00:00:{number:02d}.000000000Z {line}" for number, line in enumerate(lines, len(told))]
            self.store.changed.notify_all()

    def allowed(self, call: Call) -> bool:
        """Whether the rules allow the call."""
        if self.rules is None:
            return True
        return any(
            _listed(rule.get("apiGroups", []), call.group)
            and _listed(rule.get("resources", []), call.resource)
            and _listed(rule.get("verbs", []), call.verb)
            and (not rule.get("resourceNames") or call.name in rule["resourceNames"])
            for rule in self.rules
        )

    def kubeconfig(self) -> Object:
        """A kubeconfig that reaches this server."""
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": TOKEN}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "tester"}}],
        }  # fmt: skip


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """A server on a free port of loopback."""
    api = FakeApi()
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.closing = True
        with api.store.changed:
            api.store.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class _Target:
    kind: Kind
    namespace: str
    name: str
    part: str  # subresource


class _Handler(BaseHTTPRequestHandler):
    api: FakeApi
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        try:
            body = json.loads(raw) if raw else None
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise ApiError(401, "Unauthorized", "Unauthorized")
            self._route([unquote(part) for part in parts.path.strip("/").split("/")], body)
        except ApiError as error:
            self._answer(error.status, error.body())
        except SelectorError as error:
            self._answer(400, ApiError(400, "BadRequest", str(error)).body())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self._flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _route(self, path: list[str], body: Any) -> None:
        if path == ["version"]:
            major, minor = VERSION.split(".")
            more = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
            found = {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0", **dict.fromkeys(more, "fake")}
            return self._answer(200, found)
        if path[:2] == ["apis", "authorization.k8s.io"] and path[-1] == "selfsubjectaccessreviews":
            return self._review(body)
        if path[0] not in ("api", "apis"):
            raise ApiError(404, "NotFound", f"the server could not find {self.path}")
        if len(path) <= (2 if path[0] == "api" else 3):
            return self._discover(path)
        return self._call(self._target(path), body)

    def _target(self, path: list[str]) -> _Target:
        group, version, rest = ("", path[1], path[2:]) if path[0] == "api" else (path[1], path[2], path[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        for kind in self.api.kinds:
            if (kind.group, kind.version, kind.plural) == (group, version, rest[0]):
                return _Target(kind, namespace, rest[1] if len(rest) > 1 else "", "/".join(rest[2:]))
        raise ApiError(404, "NotFound", "the server could not find the requested resource")

    def _call(self, target: _Target, body: Any) -> None:
        kind, watching = target.kind, self.query.get("watch") in ("true", "1")
        verb = _VERBS.get(self.command) or {
            ("GET", True): "get", ("GET", False): "watch" if watching else "list",
            ("DELETE", True): "delete", ("DELETE", False): "deletecollection",
        }[self.command, bool(target.name)]  # fmt: skip
        resource = f"{kind.plural}/{target.part}" if target.part else kind.plural
        call = Call(verb, kind.group, resource, target.namespace, target.name)
        self.api.calls.append(call)
        if not self.api.allowed(call):
            raise ApiError(
                403, "Forbidden", f'{resource} is forbidden: User "tester" cannot {verb} resource "{resource}"'
            )
        for fault in [fault for fault in self.api.faults if fault[:2] == (verb, resource)]:
            self.api.faults.remove(fault)
            raise ApiError(fault[2], "InternalError" if fault[2] >= 500 else "Conflict", f"injected {fault[2]}")
        getattr(self, f"_{verb}")(target, body)

    def _get(self, target: _Target, _body: Any) -> None:
        if target.part == "log":
            return self._log(target)
        item = self.api.store.read(target.kind, target.namespace, target.name)
        if target.part == "scale":
            item = {
                "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": item["metadata"],
                "spec": {"replicas": item["spec"].get("replicas", 1)},
            }  # fmt: skip
        return self._answer(200, item)

    def _list(self, target: _Target, _body: Any) -> None:
        store, kind = self.api.store, target.kind
        with store.changed:
            found = store.select(kind, target.namespace, *self._selectors())
            version, start = store.version, 0
            if token := self.query.get("continue"):
                started, _, offset = token.partition(":")
                if int(started) < store.compacted:
                    raise ApiError(410, "Expired", "The provided continue parameter is too old")
                start = int(offset)
        limit = int(self.query.get("limit") or 0) or len(found)
        metadata: Object = {"resourceVersion": str(version)}
        if start + limit < len(found):
            metadata |= {"continue": f"{version}:{start + limit}", "remainingItemCount": len(found) - start - limit}
        self._answer(
            200,
            {
                "kind": f"{kind.kind}List",
                "apiVersion": kind.api_version,
                "metadata": metadata,
                "items": found[start : start + limit],
            },
        )

    def _create(self, target: _Target, body: Any) -> None:
        if self.query.get("dryRun"):
            return self._answer(201, Store(strict=self.api.store.strict).create(target.kind, target.namespace, body))
        return self._answer(201, self.api.store.create(target.kind, target.namespace, body))

    def _update(self, target: _Target, body: Any) -> None:
        self._answer(200, self.api.store.replace(target.kind, target.namespace, target.name, body, target.part))

    def _patch(self, target: _Target, body: Any) -> None:
        store = self.api.store
        with store.changed:
            old = store.read(target.kind, target.namespace, target.name)
            try:
                patched = apply_patch(self.headers.get("Content-Type", ""), copy.deepcopy(old), body)
            except PatchError as error:
                raise ApiError(422, "Invalid", str(error)) from error
            new = store.replace(target.kind, target.namespace, target.name, patched, target.part)
        self._answer(200, new)

    def _delete(self, target: _Target, body: Any) -> None:
        options = {**self.query, **(body or {})}
        gone = self.api.store.delete(target.kind, target.namespace, target.name, options)
        self._answer(200, gone)

    def _deletecollection(self, target: _Target, body: Any) -> None:
        store = self.api.store
        with store.changed:
            gone = store.select(target.kind, target.namespace, *self._selectors())
            for item in gone:
                store.delete(target.kind, item["metadata"].get("namespace", ""), item["metadata"]["name"], body)
        self._answer(200, {"kind": f"{target.kind.kind}List", "apiVersion": target.kind.api_version, "items": gone})

    def _watch(self, target: _Target, _body: Any) -> None:
        store, labels_fields = self.api.store, self._selectors()
        limit = time.monotonic() + float(self.query.get("timeoutSeconds") or 3600)
        asked = self.query.get("resourceVersion") or "0"
        send, alive = self._open_stream()
        with store.changed:
            seen = int(asked)
            if seen == 0:
                seen = store.version
                for item in store.select(target.kind, target.namespace, *labels_fields):
                    send({"type": "ADDED", "object": item})
        while alive() and not self.api.closing and time.monotonic() < limit:
            try:
                with store.changed:
                    events = store.since(seen)
                    if not events:
                        store.changed.wait(0.05)
                        continue
            except ApiError as error:
                send({"type": "ERROR", "object": error.body()})
                break
            for event in events:
                seen = event.version
                if told := _as_seen(event, target, *labels_fields):
                    send(told)
        self._end_stream()

    def _log(self, target: _Target) -> None:
        store = self.api.store
        pod = store.read(target.kind, target.namespace, target.name)
        containers = [container["name"] for container in pod["spec"]["containers"]]
        wanted = self.query.get("container") or containers[0]
        key = (target.namespace, target.name, wanted)
        waiting = pod.get("status", {}).get("phase", "Pending") == "Pending"
        if waiting and key not in self.api.logs:
            raise ApiError(
                400, "BadRequest", f'container "{wanted}" in pod "{target.name}" is waiting to start: ContainerCreating'
            )
        tail = self.query.get("tailLines")
        lines = self.api.logs.get(key, [])
        sent = len(lines) - int(tail) if tail and int(tail) < len(lines) else 0
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        stamped = self.query.get("timestamps") in ("true", "1", "True")
        following = self.query.get("follow") in ("true", "1", "True")
        while True:
            with store.changed:
                lines = self.api.logs.get(key, [])[sent:]
                sent += len(lines)
                found = store.objects.get((target.kind, target.namespace, target.name))
                over = found is None or found.get("status", {}).get("phase") in ("Succeeded", "Failed")
                if not lines and following and not over and not self.api.closing:
                    store.changed.wait(0.05)
                    continue
            for line in lines:
                self._chunk((line if stamped else line.partition(" ")[2]).encode() + b"\n")
                self.api.cut_logs_after -= 1
                if self.api.cut_logs_after == 0:
                    self.close_connection = True
                    return  # without the last chunk: a connection that broke
            if not following or (over and not lines) or self.api.closing:
                break
        self._chunk(b"")

    def _review(self, body: Any) -> None:
        asked = body["spec"]["resourceAttributes"]
        resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        call = Call(asked["verb"], asked.get("group", ""), resource, asked.get("namespace", ""), asked.get("name", ""))
        self._answer(201, {**body, "status": {"allowed": self.api.allowed(call)}})

    def _discover(self, path: list[str]) -> None:
        kinds = self.api.kinds
        if path == ["api"]:
            return self._answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        groups = sorted({(kind.group, kind.version) for kind in kinds if kind.group})
        if path == ["apis"]:
            listed = [
                {"name": group, "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                 "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version}}
                for group, version in groups
            ]  # fmt: skip
            return self._answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        group, version = ("", path[1]) if path[0] == "api" else (path[1], path[-1])
        resources = [
            {
                "name": kind.plural,
                "kind": kind.kind,
                "namespaced": kind.namespaced,
                "singularName": "",
                "verbs": ["get"],
            }
            for kind in kinds
            if (kind.group, kind.version) == (group, version)
        ]
        if not resources:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        name = f"{group}/{version}" if group else version
        return self._answer(200, {"kind": "APIResourceList", "groupVersion": name, "resources": resources})

    def _selectors(self) -> tuple[str, str]:
        return self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")

    def _answer(self, status: int, body: Object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _open_stream(self) -> tuple[Any, Any]:
        """How to send an event to a watcher, and how to ask whether it still listens."""
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self.close_connection = True
            self.stream = Websocket(self)
            return self.stream.send, self.stream.alive
        self.stream = None
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._flush()
        return lambda event: self._chunk(json.dumps(event).encode() + b"\n"), lambda: not self.close_connection

    def _end_stream(self) -> None:
        if self.stream is None:
            self._chunk(b"")
        else:
            self.stream.close()

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self._flush()

    def _flush(self) -> None:
        try:
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError, ValueError):
            self.close_connection = True


def _as_seen(event: Event, target: _Target, labels: str, fields: str) -> Object | None:
    """The event as a watch with these selectors tells it: what stops matching is DELETED, what starts is ADDED."""
    item, metadata = event.item, event.item["metadata"]
    if event.kind != target.kind or (target.namespace and metadata.get("namespace") != target.namespace):
        return None
    if target.name and metadata["name"] != target.name:
        return None
    now = selected(item, labels, fields)
    if event.type != "MODIFIED" or event.before is None:
        return {"type": event.type, "object": item} if now else None
    was = selected(event.before, labels, fields)
    if not now:
        return {"type": "DELETED", "object": item} if was else None
    return {"type": "MODIFIED" if was else "ADDED", "object": item}


def _listed(allowed: list[str], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed

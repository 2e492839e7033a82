"""What of Kubernetes' API Snakemake's plug-in uses, over HTTP; a "pod" is a process in an empty folder of its own.

No scheduler, no images, no limits: whether a cluster accepts a specification and enforces it is not shown here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JOBS = re.compile(r"^/apis/batch/v1/namespaces/[^/]+/jobs(?:/([^/?]+))?")
SECRETS = re.compile(r"^/api/v1/namespaces/[^/]+/secrets")


class FakeCluster:
    """Serves the API, starts a process for every job, and keeps all specifications.

    Args:
        folder: where processes work, one folder each.
        environment: what the "image" sets, beside what a specification asks for.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.specifications: list[dict[str, Any]] = []
        self.secrets: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def write_kubeconfig(self, path: Path) -> None:
        """Settings with which a client finds this cluster."""
        host, port = self._server.server_address[:2]
        named = {
            "cluster": {"server": f"http://{host}:{port}"},
            "context": {"cluster": "fake", "user": "fake"},
            "user": {},
        }
        lists = {f"{kind}s": [{"name": "fake", kind: value}] for kind, value in named.items()}
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "fake", **lists}))

    def start_job(self, specification: dict[str, Any]) -> None:
        """Runs the job's container here."""
        name = specification["metadata"]["name"]
        (container,) = specification["spec"]["template"]["spec"]["containers"]
        workdir = self.folder / name
        workdir.mkdir(parents=True)
        named = {item["name"]: item["valueFrom"]["secretKeyRef"]["key"] for item in container.get("env") or []}
        secrets = {name: self.secrets[key] for name, key in named.items()}
        self.specifications.append(specification)
        with (workdir.parent / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=workdir,
                env={"PATH": os.environ["PATH"], "HOME": str(workdir), **self.environment, **secrets},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def status(self, name: str) -> dict[str, Any]:
        """A job as the API tells it."""
        code = self.processes[name].poll()
        counts = {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "status": counts}

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if SECRETS.match(self.path):
            values = {key: base64.b64decode(value).decode() for key, value in body["data"].items()}
            self.cluster.secrets.update(values)
        elif JOBS.match(self.path):
            self.cluster.start_job(body)
        self._answer(body, 201)

    def do_GET(self) -> None:
        found = JOBS.match(self.path)
        if found and found[1]:
            self._answer(self.cluster.status(found[1]))
        else:  # pods: the plug-in looks at jobs as well
            self._answer({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []})

    def do_DELETE(self) -> None:
        self._answer({"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def _answer(self, document: dict[str, Any], code: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the trial tells what matters."""

"""SAEs from the hub: a small server on this machine speaks the few calls that are needed, and serves files that the
real libraries wrote. huggingface_hub reads its address when it is imported, so each script runs in a process."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sae_tutorial import load_sae

PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
SHA = "0123456789abcdef0123456789abcdef01234567"
GEMMA = "google/gemma-scope-2b-pt-res"
REPOS = {  # folders on this machine by id
    "lab/saelens": PEERS / "saelens",
    "lab/one": PEERS / "saelens5" / "standard_topk",
    "lab/sparsify": PEERS / "sparsify",
    GEMMA: PEERS / "gemma_scope" / GEMMA,
    "lab/gated": None,
}


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def log_message(self, *_):
        pass

    def answer(self, body):
        path = self.path.partition("?")[0].strip("/").split("/")
        self.server.asked.append(self.path)
        if path == [""]:
            return self.send(200, b"", body)
        api = path[0] == "api"
        org, name, *rest = [*(path[2:] if api else path), "", ""]
        rest = [part for part in rest if part]
        folder = REPOS.get(f"{org}/{name}", "missing")
        if folder == "missing":
            return self.send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if folder is None:
            return self.send(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
        if rest[:1] == ["revision"] or (api and not rest):
            if rest and rest[1] not in ("main", "v1", SHA):
                return self.send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
            files = [{"rfilename": str(p.relative_to(folder))} for p in folder.rglob("*") if p.is_file()]
            return self.send(200, json.dumps({"id": f"{org}/{name}", "sha": SHA, "siblings": files}).encode(), body)
        if rest[:1] == ["tree"]:
            listed = [
                {"type": "file", "path": str(p.relative_to(folder)), "size": p.stat().st_size, "oid": digest(p)}
                for p in folder.rglob("*")
                if p.is_file()
            ]
            return self.send(200, json.dumps(listed).encode(), body)
        file = folder.joinpath(*rest[2:])
        if not file.is_file():
            return self.send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
        return self.send(200, file.read_bytes(), body, {"X-Repo-Commit": SHA, "ETag": f'"{digest(file)}"'})

    def send(self, status, content, body, more=()):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(more)}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(script, cache, address, offline=False):
    """What the script printed, one JSON value a line; it sees an empty working directory."""
    cache.mkdir(exist_ok=True)
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": str(int(offline))}
    settings |= {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    found = subprocess.run(
        [sys.executable, "-c", SETUP + script], capture_output=True, text=True, cwd=cache, env=os.environ | settings
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()], found.stderr


SETUP = """
import json, torch
from sae_tutorial import load_metadata, load_sae
def show(name, **options):
    try:
        sae = load_sae(name, **options)
        about = [sae.model_name, sae.hook_name]
        found = {"rule": sae.config.rule, "sum": float(sae.W_dec.detach().double().sum()), "about": about}
    except Exception as error:
        found = {"error": type(error).__name__, "says": str(error)}
    print(json.dumps(found))
"""
SCRIPT = f"""
show("lab/saelens/topk")
show("lab/one")
show("lab/one/", revision="v1")
show("lab/sparsify/skip_transcoder")
show("{GEMMA}/layer_3/width_16k/average_l0_4")
show("{GEMMA}/layer_3/width_16k/average_l0_4/params.npz")
show("lab/saelens")
show("lab/saelens/nothing/there")
show("lab/nobody")
show("lab/one", revision="v9")
show("lab/gated")
show("./lab/one")
"""


def test_the_hub_and_its_cache(server, tmp_path):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    found, _ = run(SCRIPT, tmp_path / "cache", address)
    local = [PEERS / "saelens" / "topk", REPOS["lab/one"], REPOS["lab/one"], PEERS / "sparsify" / "skip_transcoder"]
    local += [next(PEERS.rglob("params.npz")).parent] * 2
    for one, folder in zip(found, local, strict=False):
        sae = load_sae(folder)
        assert one["rule"] == sae.config.rule and one["sum"] == float(sae.W_dec.detach().double().sum())
        assert one["about"] == [sae.model_name, sae.hook_name]
    assert found[1]["about"] == ["gpt2-small", "blocks.3.hook_resid_pre"]
    assert found[4]["about"] == ["gemma-2-2b", "blocks.3.hook_resid_post"]
    errors = [(one["error"], one["says"]) for one in found[6:]]
    kinds = ["FileNotFoundError"] * 4 + ["PermissionError", "FileNotFoundError"]
    assert [error for error, _ in errors] == kinds
    for (_, says), words in zip(
        errors,
        [
            "has no SAE in '.'; it has them in batchtopk, gated",
            "'nothing/there'",
            "no such repository",
            "no such revision that you may see (revision='v9')",
            "asks for a login",
            "there is no folder lab/one",
        ],
        strict=True,
    ):
        assert words in says, says
    downloaded = [path for path in server.asked if "/resolve/" in path]
    assert not [path for path in downloaded if "example" in path or "versions" in path]  # what is no part of an SAE

    asked = len(server.asked)
    again, _ = run(SCRIPT.partition('show("lab/saelens")')[0], tmp_path / "cache", address, offline=True)
    assert again == found[:6] and len(server.asked) == asked  # from the cache


def test_without_the_hub(tmp_path):
    (tmp_path / "cache" / "here" / "sae").mkdir(parents=True)
    script = 'show("lab/saelens/topk"); show("here/sae"); show("here/other"); show("here/other", revision="v1")'
    found, _ = run(script, tmp_path / "cache", "http://127.0.0.1:9", offline=False)
    assert [one["error"] for one in found] == [
        "ConnectionError",
        "FileNotFoundError",
        "FileNotFoundError",
        "ValueError",
    ]
    assert "'lab/saelens' is no folder here" in found[0]["says"] and "cannot be reached" in found[0]["says"]
    assert "here/sae holds no SAE" in found[1]["says"] and "there is no folder here/other" in found[2]["says"]
    assert "revision='v1' is for ids on the Hugging Face hub" in found[3]["says"]

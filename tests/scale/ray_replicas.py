"""Ray Serve as the router: each of its replicas starts a sessa-server of its own and passes requests through to it, streams in pieces.

    build/venv-ray/bin/python tests/scale/ray_replicas.py --server build/release/sessa-server [--replicas 3] [--seconds 16]

Asks while one server is killed, and prints how many requests were answered, broke off, or were lost before a token. What Ray gives: it
starts and watches replicas on all machines of a Ray cluster, scales them by requests on their way, and picks the less busy of two.
It knows nothing of prefixes. Wants ray[serve] and aiohttp."""
import argparse
import asyncio
import pathlib
import re
import signal
import subprocess
import time

import aiohttp
import ray
import starlette.requests
import starlette.responses
from ray import serve

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "demo"


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=64, health_check_period_s=1, health_check_timeout_s=2)
class Replica:
    def __init__(self, binary):
        self.server = subprocess.Popen([binary, str(MODEL), "--http_port=0", "--grpc_port=0", "--admin_port=off", "--threads=1",
                                        "--access_log=off"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = "http://" + re.match(r"ready http=(\S+)", self.server.stdout.readline())[1]

    def __del__(self):
        self.server.send_signal(signal.SIGTERM)

    def check_health(self):
        """Raises where Ray is to start another one in its place."""
        if self.server.poll() is not None:
            raise RuntimeError("the server has ended")

    def pid(self):
        return self.server.pid

    async def __call__(self, request: starlette.requests.Request):
        async def pieces(session, reply):
            async with session, reply:
                async for piece in reply.content.iter_any():
                    yield piece

        session = aiohttp.ClientSession()
        try:
            reply = await session.request(request.method, self.url + str(request.url.path), data=await request.body(),
                                          headers={"Content-Type": "application/json"})
        except aiohttp.ClientError as error:  # Ray asks no other replica: its router knows no answers
            await session.close()
            return starlette.responses.PlainTextResponse(str(error), status_code=502)
        return starlette.responses.StreamingResponse(pieces(session, reply), status_code=reply.status,
                                                     headers={"Content-Type": reply.headers["Content-Type"]})


async def ask(session, url, counts):
    body = {"prompt": "One day", "max_tokens": 300, "ignore_eos": True, "stream": True}
    text = b""
    try:
        async with session.post(url + "/v1/completions", json=body) as reply:
            async for piece in reply.content.iter_any():
                text += piece
    except aiohttp.ClientError:
        pass
    counts["answered" if text.endswith(b"data: [DONE]\n\n") else "broken off" if b"data: " in text else "lost"] += 1


async def drive(url, seconds, pids):
    counts = {"answered": 0, "broken off": 0, "lost": 0}
    async with aiohttp.ClientSession() as session:
        tasks, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            tasks.append(asyncio.create_task(ask(session, url, counts)))
            if len(tasks) == 8 * 4:
                subprocess.run(["kill", "-9", str(pids[0])], check=True)
            await asyncio.sleep(1 / 8)
        await asyncio.gather(*tasks)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, type=pathlib.Path)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=16)
    options = parser.parse_args()
    ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, num_cpus=2, log_to_driver=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": 8123})
    handle = serve.run(Replica.options(num_replicas=options.replicas).bind(str(options.server.resolve())))
    pids = {handle.pid.remote().result() for _ in range(20)}
    print(len(pids), "servers behind one address:", asyncio.run(drive("http://127.0.0.1:8123", options.seconds, sorted(pids))), flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(now := {handle.pid.remote().result() for _ in range(20)}) < options.replicas:
        time.sleep(1)
    print("afterwards", len(now), "servers, of them new:", len(now - pids))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()

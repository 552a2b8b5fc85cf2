"""The stubs of proto/, generated when first imported; the health service is spoken by hand (one string, one enum)."""
import atexit
import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc

from server_process import ROOT

_generated = tempfile.TemporaryDirectory()
atexit.register(_generated.cleanup)
_proto = ROOT / "proto"
_args = ["protoc", f"-I{_proto}", f"-I{pathlib.Path(grpc_tools.__file__).parent / '_proto'}",
         f"--python_out={_generated.name}", f"--grpc_python_out={_generated.name}",
         *(str(_proto / p) for p in ("sessa/v1/generation.proto", "google/rpc/status.proto",
                                     "google/rpc/error_details.proto"))]
if protoc.main(_args) != 0:
    raise RuntimeError("protoc failed")
sys.path.insert(0, _generated.name)

from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from sessa.v1 import generation_pb2 as pb  # noqa: E402
from sessa.v1 import generation_pb2_grpc  # noqa: E402

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def connect(server):
    channel = grpc.insecure_channel(server.grpc_address)
    return channel, generation_pb2_grpc.GenerationStub(channel)


def detail(error, kind):
    """The `kind` message in an RpcError's details, or None."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            for item in status_pb2.Status.FromString(value).details:
                message = kind()
                if item.Unpack(message):
                    return message
    return None


def health(channel, service="", watch=False):
    """The raw reply of Health.Check, or the stream of Health.Watch."""
    request = bytes([0x0A, len(service)]) + service.encode() if service else b""
    method = "/grpc.health.v1.Health/" + ("Watch" if watch else "Check")
    make = channel.unary_stream if watch else channel.unary_unary
    return make(method, request_serializer=None, response_deserializer=None)(request, timeout=120)


BadRequest = error_details_pb2.BadRequest
RetryInfo = error_details_pb2.RetryInfo
ErrorInfo = error_details_pb2.ErrorInfo

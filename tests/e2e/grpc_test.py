"""sessa.v1.Generation of the real server through plain grpcio."""
import json
import unittest

import grpc

import grpc_client
from grpc_client import pb
from server_process import PROMPT, ServerProcess, slow_model, wait_until


def generate(stub, text=PROMPT, **sampling):
    sampling.setdefault("temperature", 0)
    return list(stub.Generate(pb.GenerateRequest(text=text, sampling=pb.Sampling(**sampling)), timeout=120))


class GrpcTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess("--state_dtype=f32")
        cls.addClassCleanup(cls.server.stop)
        cls.channel, cls.stub = grpc_client.connect(cls.server)
        cls.addClassCleanup(cls.channel.close)

    def test_stream_order_and_usage(self):
        replies = generate(self.stub, max_tokens=12, n=2, ignore_eos=True)
        kinds = [r.WhichOneof("event") for r in replies]
        self.assertEqual(kinds[0], "started")
        self.assertEqual(kinds[-1], "finished")
        self.assertEqual(set(kinds[1:-1]), {"delta"})
        ids = [[t for r in replies[1:-1] if r.delta.choice == c for t in r.delta.token_ids] for c in range(2)]
        self.assertEqual(len(ids[0]), 12)
        self.assertEqual(ids[0], ids[1])  # greedy
        usage = replies[-1].finished.usage
        self.assertEqual(usage.completion_tokens, 24)
        self.assertEqual(usage.prompt_tokens, replies[0].started.prompt_tokens)
        self.assertEqual(list(replies[-1].finished.finish_reasons), [pb.FINISH_REASON_LENGTH] * 2)

    def test_text_is_that_of_rest(self):
        replies = generate(self.stub, max_tokens=24)
        text = "".join(r.delta.text for r in replies[1:-1])
        status, _, body = self.server.request(
            "POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 24, "temperature": 0})
        self.assertEqual(status, 200, body)
        self.assertEqual(json.loads(body)["choices"][0]["text"], text)

    def test_token_ids_and_text_prompts_agree(self):
        ids = self.stub.Tokenize(pb.TokenizeRequest(text=PROMPT)).token_ids
        by_ids = self.stub.Generate(pb.GenerateRequest(
            token_ids=pb.TokenIds(ids=ids), sampling=pb.Sampling(temperature=0, max_tokens=8)))
        self.assertEqual([t for r in by_ids for t in r.delta.token_ids],
                         [t for r in generate(self.stub, max_tokens=8) for t in r.delta.token_ids])

    def test_tokenize_round_trip(self):
        ids = self.stub.Tokenize(pb.TokenizeRequest(text=PROMPT, add_special_tokens=False)).token_ids
        self.assertGreater(len(ids), 10)
        self.assertEqual(self.stub.Detokenize(pb.DetokenizeRequest(token_ids=ids)).text, PROMPT)

    def test_logprobs(self):
        for reply in generate(self.stub, max_tokens=4, logprobs=3, ignore_eos=True)[1:-1]:
            for token in reply.delta.logprobs:
                self.assertLessEqual(token.logprob, 0)
                self.assertEqual(len(token.top), 3)
                self.assertEqual(token.top[0].token_id, token.token_id)  # greedy picks the best
                self.assertAlmostEqual(token.top[0].logprob, token.logprob, places=5)

    def test_prompt_logprobs_come_before_the_text(self):
        replies = generate(self.stub, max_tokens=2, prompt_logprobs=2, ignore_eos=True)
        kinds = [r.WhichOneof("event") for r in replies]
        last = len(kinds) - kinds[::-1].index("prompt_logprobs")
        self.assertEqual(set(kinds[1:last]), {"prompt_logprobs"})
        tokens = [t for r in replies[1:last] for t in r.prompt_logprobs.tokens]
        self.assertEqual([t.token_id for t in tokens], list(self.stub.Tokenize(pb.TokenizeRequest(text=PROMPT)).token_ids))
        self.assertFalse(tokens[0].HasField("logprob"))
        self.assertTrue(all(t.logprob <= 0 and len(t.top) == 2 for t in tokens[1:]))
        self.assertEqual(sum(len(r.delta.token_ids) for r in replies), 2)
        self.assertFalse(any(r.delta.logprobs for r in replies))

    def test_model_info_and_load(self):
        info = self.stub.GetModelInfo(pb.GetModelInfoRequest())
        self.assertEqual((info.name, info.vocab_size, info.hidden_size), ("demo", 1024, 192))
        self.assertEqual((info.weight_dtype, info.state_dtype), ("bf16", "f32"))
        load = self.stub.GetLoad(pb.GetLoadRequest())
        self.assertTrue(load.ready)
        self.assertFalse(load.draining)

    def expect_error(self, code, field, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.stub.Generate(pb.GenerateRequest(**kwargs), timeout=120))
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        if field:
            bad = grpc_client.detail(caught.exception, grpc_client.BadRequest)
            self.assertEqual([v.field for v in bad.field_violations], [field])
        return caught.exception

    def test_bad_inputs(self):
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        self.expect_error(invalid, "prompt")
        self.expect_error(invalid, "prompt", token_ids=pb.TokenIds(ids=[1024]))
        self.expect_error(invalid, "temperature", text="x", sampling=pb.Sampling(temperature=float("nan")))
        self.expect_error(invalid, "top_p", text="x", sampling=pb.Sampling(top_p=0))
        error = self.expect_error(invalid, None, text="x", sampling=pb.Sampling(max_tokens=5000))
        self.assertEqual(grpc_client.detail(error, grpc_client.ErrorInfo).reason, "context_length_exceeded")
        self.expect_error(grpc.StatusCode.NOT_FOUND, None, text="x", model="other")

    def test_chat_and_its_field_names(self):
        chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="Where is the coin?")])
        replies = list(self.stub.Generate(pb.GenerateRequest(chat=chat, sampling=pb.Sampling(max_tokens=4)), timeout=120))
        self.assertEqual(replies[-1].WhichOneof("event"), "finished")
        self.expect_error(grpc.StatusCode.INVALID_ARGUMENT, "max_tokens", chat=chat, sampling=pb.Sampling(max_tokens=0))
        self.expect_error(grpc.StatusCode.INVALID_ARGUMENT, "logprobs", chat=chat, sampling=pb.Sampling(logprobs=21))

    def test_deltas_are_the_text_of_their_tokens(self):
        for seed in range(8):
            replies = generate(self.stub, "naïve 🐝 数据", temperature=2, seed=seed, max_tokens=64, ignore_eos=True)
            ids = [t for r in replies for t in r.delta.token_ids]
            self.assertEqual(len(ids), 64)
            whole = self.stub.Detokenize(pb.DetokenizeRequest(token_ids=ids, skip_special_tokens=True)).text
            self.assertEqual("".join(r.delta.text for r in replies), whole)

    def test_reflection_lists_the_services(self):
        # ServerReflectionRequest{list_services: "*"} by hand: one string in, the names somewhere in what comes out.
        for version in ("v1", "v1alpha"):
            call = self.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                              request_serializer=None, response_deserializer=None)
            # And of a symbol {4: name} the file with all that it imports.
            symbol = b"sessa.v1.GenerateRequest"
            services, file, nothing = call(iter([b"\x3a\x01*", bytes([0x22, len(symbol)]) + symbol, b"\x22\x01x"]), timeout=120)
            for name in (b"sessa.v1.Generation", b"inference.GRPCInferenceService", b"grpc.health.v1.Health",
                         b"grpc.reflection.v1.ServerReflection", b"grpc.reflection.v1alpha.ServerReflection"):
                self.assertIn(name, services)
            self.assertIn(b"truncate_prompt_tokens", file)
            self.assertIn(b"not found", nothing)

    def test_compressed_messages_cost_nothing(self):
        # 64 MiB that are 64 KiB on the wire: refused before they are inflated. The state cache is small, as memory for its next pages
        # comes meanwhile.
        server = ServerProcess("--state_cache_bytes=8MiB", "--max_model_len=64")
        self.addCleanup(server.stop)
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)

        def resident():
            return server.metrics()["process_resident_memory_bytes"]
        before = resident()
        with self.assertRaises(grpc.RpcError) as caught:
            stub.Tokenize(pb.TokenizeRequest(text="a" * (64 << 20)), compression=grpc.Compression.Gzip, timeout=120)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED, caught.exception.details())
        self.assertLess(resident() - before, 32 << 20)

    def test_health(self):
        for service in ("", "sessa.v1.Generation", "inference.GRPCInferenceService", "liveness", "startup"):
            self.assertEqual(grpc_client.health(self.channel, service), grpc_client.SERVING)


class GrpcUnfinishedTest(unittest.TestCase):
    """Calls that end before their answer."""
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess(model=slow_model())
        cls.addClassCleanup(cls.server.stop)
        cls.channel, cls.stub = grpc_client.connect(cls.server)
        cls.addClassCleanup(cls.channel.close)

    def call(self, timeout=None, **more):
        return self.stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(max_tokens=3900, ignore_eos=True), **more),
                                  timeout=timeout)

    def test_cancel_frees_the_engine(self):
        call = self.call()
        next(call)
        call.cancel()
        with self.assertRaises(grpc.RpcError):
            list(call)
        for name in ("num_requests_in_flight", "num_requests_running", "state_cache_usage_ratio"):
            wait_until(lambda: self.server.metrics()[f"sessa_{name}"] == 0)

    def test_abort_by_id(self):
        call = self.call(request_id="to-abort")
        self.assertEqual(next(call).started.request_id, "to-abort")
        self.assertTrue(self.stub.Abort(pb.AbortRequest(request_id="to-abort")).found)
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)
        self.assertFalse(self.stub.Abort(pb.AbortRequest(request_id="never")).found)

    def test_deadline(self):
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.call(timeout=0.3))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


if __name__ == "__main__":
    unittest.main()

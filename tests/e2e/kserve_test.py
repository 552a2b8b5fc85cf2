"""KServe v2 through Triton's own clients, HTTP and gRPC: every call of theirs that there is something to answer to.
Shared memory, traces and the settings of Triton's log are not among them."""
import json
import queue
import unittest

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from server_process import PROMPT, ServerProcess

PARAMETERS = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}


def text_input(module, text=PROMPT):
    tensor = module.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
    return [tensor]


def ids_input(module, ids):
    tensor = module.InferInput("input_ids", [len(ids)], "INT64")
    tensor.set_data_from_numpy(np.array(ids, dtype=np.int64))
    return [tensor]


class KserveTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess("--state_dtype=f32")
        cls.addClassCleanup(cls.server.stop)
        cls.http = triton_http.InferenceServerClient(cls.server.http_address)
        cls.addClassCleanup(cls.http.close)
        cls.grpc = triton_grpc.InferenceServerClient(cls.server.grpc_address)
        cls.addClassCleanup(cls.grpc.close)
        body = json.loads(cls.server.request("POST", "/v1/completions", {
            "prompt": PROMPT, "return_token_ids": True, **PARAMETERS})[2])
        cls.text = body["choices"][0]["text"]
        cls.ids = body["choices"][0]["token_ids"]
        cls.prompt_ids = body["choices"][0]["prompt_token_ids"]

    def both(self):
        for name, module, client in (("http", triton_http, self.http), ("grpc", triton_grpc, self.grpc)):
            with self.subTest(name):
                yield module, client

    def test_health_and_descriptions(self):
        for module, client in self.both():
            of_grpc = {"as_json": True} if module is triton_grpc else {}
            self.assertTrue(client.is_server_live() and client.is_server_ready())
            self.assertTrue(client.is_model_ready("demo") and client.is_model_ready("demo", "1"))
            self.assertEqual(client.get_server_metadata(**of_grpc)["name"], "sessa")
            model = client.get_model_metadata("demo", **of_grpc)
            self.assertEqual((model["versions"], model["inputs"][0]["name"]), (["1"], "text_input"))
            config = client.get_model_config("demo", "1", **of_grpc)
            config = config.get("config", config)
            self.assertEqual([o["name"] for o in config["output"]], ["text_output", "output_ids", "finish_reason"])
            index = client.get_model_repository_index(**of_grpc)
            index = index["models"] if module is triton_grpc else index
            self.assertEqual([(m["name"], m["state"]) for m in index], [("demo", "READY")])
            stats = client.get_inference_statistics("demo", **of_grpc)["model_stats"][0]
            self.assertGreater(int(stats["inference_stats"]["success"]["ns"]), 0)

    def test_infer(self):
        for module, client in self.both():
            for inputs in (text_input(module), ids_input(module, self.prompt_ids)):
                result = client.infer("demo", inputs, request_id="mine", parameters=PARAMETERS)
                self.assertEqual(result.as_numpy("text_output")[0].decode(), self.text)
                self.assertEqual(result.as_numpy("output_ids").tolist(), self.ids)
                self.assertEqual(result.as_numpy("finish_reason")[0], b"length")
            wanted = [module.InferRequestedOutput("text_output")]
            result = client.infer("demo", text_input(module), model_version="1", outputs=wanted, parameters=PARAMETERS)
            self.assertEqual(result.as_numpy("text_output")[0].decode(), self.text)
            self.assertIsNone(result.as_numpy("output_ids"))

    def test_infer_as_json_and_compressed(self):
        tensor = triton_http.InferInput("text_input", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([PROMPT.encode()], dtype=np.object_), binary_data=False)
        wanted = [triton_http.InferRequestedOutput("text_output", binary_data=False)]
        result = self.http.infer("demo", [tensor], outputs=wanted, parameters=PARAMETERS,
                                 request_compression_algorithm="gzip")
        self.assertEqual(result.as_numpy("text_output")[0], self.text)
        with self.assertRaises(InferenceServerException) as caught:
            self.http.infer("demo", [tensor], parameters=PARAMETERS, request_compression_algorithm="deflate")
        self.assertEqual(caught.exception.status(), "415")

    def test_async_infer(self):
        result = self.http.async_infer("demo", text_input(triton_http), parameters=PARAMETERS).get_result()
        self.assertEqual(result.as_numpy("text_output")[0].decode(), self.text)
        answers = queue.Queue()
        self.grpc.async_infer("demo", text_input(triton_grpc), lambda result, error: answers.put((result, error)),
                              parameters=PARAMETERS)
        result, error = answers.get(timeout=120)
        self.assertIsNone(error)
        self.assertEqual(result.as_numpy("text_output")[0].decode(), self.text)

    def test_stream(self):
        answers = queue.Queue()
        self.grpc.start_stream(lambda result, error: answers.put((result, error)))
        self.grpc.async_stream_infer("demo", text_input(triton_grpc), request_id="a", parameters=PARAMETERS,
                                     enable_empty_final_response=True)
        self.grpc.async_stream_infer("demo", ids_input(triton_grpc, [5000]), request_id="b", parameters=PARAMETERS)
        self.grpc.async_stream_infer("demo", ids_input(triton_grpc, self.prompt_ids), request_id="c", parameters=PARAMETERS)
        texts, ids, errors, num_answers = {"a": "", "c": ""}, {"a": [], "c": []}, [], 0
        while len(errors) < 1 or num_answers < 2:
            result, error = answers.get(timeout=120)
            if error is not None:
                errors.append(error)
                continue
            response = result.get_response()
            texts[response.id] += result.as_numpy("text_output")[0].decode()
            ids[response.id] += result.as_numpy("output_ids").tolist()
            num_answers += response.parameters["triton_final_response"].bool_param
        self.grpc.stop_stream()
        self.assertEqual((texts, ids), ({"a": self.text, "c": self.text}, {"a": self.ids, "c": self.ids}))
        self.assertIn("5000", str(errors[0]))

    def test_generate_stream_is_json_alone(self):
        status, _, body = self.server.request("POST", "/v2/models/demo/generate_stream", {
            "text_input": PROMPT, "parameters": PARAMETERS})
        events = [json.loads(event.removeprefix("data: ")) for event in body.split("\n\n") if event]
        self.assertEqual((status, "".join(e["text_output"] for e in events)), (200, self.text))

    def test_errors(self):
        for module, client in self.both():
            for call in (lambda: client.infer("other", text_input(module)),
                         lambda: client.infer("demo", text_input(module), model_version="2"),
                         lambda: client.infer("demo", text_input(module), parameters={"temperature": -1.0}),
                         lambda: client.get_model_metadata("other"),
                         lambda: client.get_model_config("demo", "7"),
                         lambda: client.load_model("demo"),
                         lambda: client.unload_model("demo")):
                with self.assertRaises(InferenceServerException) as caught:
                    call()
                self.assertTrue(caught.exception.status())


if __name__ == "__main__":
    unittest.main()

"""What a checkpoint folder says is obeyed by the real server: generation_config.json, special tokens, and what is not there."""
import contextlib
import json
import pathlib
import shutil
import tempfile
import threading
import unittest

import grpc

import grpc_client
from grpc_client import pb
from server_process import ROOT, ServerProcess

END = "<|endoftext|>"
FIRST = 12  # what the demo says after "One day" when it takes the likeliest token


class CheckpointTest(unittest.TestCase):
    def folder(self, files, without=()):
        """The demo with other files: {name: JSON or text}."""
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        folder = pathlib.Path(root.name, "demo")
        folder.mkdir()
        for path in (ROOT / "models" / "demo").iterdir():
            if path.name not in without:
                shutil.copy(path, folder)
        for name, content in files.items():
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    def start(self, *flags, files, without=()):
        server = ServerProcess(*flags, model=self.folder(files, without))
        self.addCleanup(server.stop)
        return server

    def post(self, server, path, body, status=200):
        found, _, text = server.request("POST", path, body)
        self.assertEqual(found, status, text)
        return json.loads(text)

    def test_generation_config(self):
        files = {"generation_config.json": {"eos_token_id": [0, FIRST], "temperature": 0.0, "top_p": 0.9, "top_k": 40,
                                            "repetition_penalty": 1.1, "max_new_tokens": 3, "do_sample": True}}
        server = self.start(files=files)
        greedy = {"prompt": "One day", "max_tokens": 20, "temperature": 0, "return_token_ids": True}
        choice = self.post(server, "/v1/completions", greedy)["choices"][0]
        self.assertEqual((choice["token_ids"], choice["finish_reason"]), ([FIRST], "stop"))
        # Temperature 0 without being asked for; a request's own values win, but for the length.
        body = {"prompt": "One day", "ignore_eos": True, "return_token_ids": True}
        texts = {tuple(self.post(server, "/v1/completions", body | {"seed": s})["choices"][0]["token_ids"]) for s in range(4)}
        self.assertEqual([len(ids) for ids in texts], [3])
        warm = body | {"temperature": 2, "top_p": 1, "top_k": 0, "max_tokens": 8}
        texts = {tuple(self.post(server, "/v1/completions", warm | {"seed": s})["choices"][0]["token_ids"]) for s in range(4)}
        self.assertEqual((len(texts), {len(ids) for ids in texts}), (4, {3}))
        shorter = self.post(server, "/v1/completions", warm | {"max_tokens": 2})["choices"][0]
        self.assertEqual((len(shorter["token_ids"]), shorter["finish_reason"]), (2, "length"))
        chat = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}
        for more in ({}, {"max_tokens": 100}):
            self.assertEqual(self.post(server, "/v1/chat/completions", chat | more)["usage"]["completion_tokens"], 3)
        distance = {"input": ["One day", "Once"], "n": 2}
        self.assertEqual(self.post(server, "/v1/similarity", distance | {"max_tokens": 4}, 400)["error"]["param"], "max_tokens")
        self.post(server, "/v1/similarity", distance | {"max_tokens": 3})
        model = json.loads(server.request("GET", "/v1/models")[2])["data"][0]
        self.assertEqual(model["default_sampling_params"], {"temperature": 0, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1, "max_tokens": 3})
        self.assertIn("requests that do not say get temperature 0, top_p 0.9, top_k 40", server.stderr())
        self.assertIn("no answer has more than 3 tokens", server.stderr())

        none = self.start("--generation_config=none", files=files)
        self.assertEqual(self.post(none, "/v1/completions", greedy)["choices"][0]["token_ids"], [FIRST])  # still an end
        self.assertEqual(len(self.post(none, "/v1/completions", body)["choices"][0]["token_ids"]), 16)
        self.assertEqual(len(self.post(none, "/v1/completions", warm)["choices"][0]["token_ids"]), 8)
        self.assertEqual(json.loads(none.request("GET", "/v1/models")[2])["data"][0]["default_sampling_params"], {})

    def test_bad_generation_configs_name_file_and_key(self):
        for config, expected in (({"eos_token_id": 1024}, "eos_token_id"), ({"temperature": "hot"}, "temperature: must be a number"),
                                 ({"top_p": 0}, "top_p"), ({"max_new_tokens": 0}, "max_new_tokens"), ("[", "not JSON")):
            with self.subTest(config):
                server = ServerProcess(model=self.folder({"generation_config.json": config}), wait=False)
                self.assertEqual(server.process.wait(60), 1)
                server.process.stdout.close()
                self.assertRegex(server.stderr(), f"demo/generation_config.json: {expected}")
                server.errors.close()

    def test_stop_strings_may_name_special_tokens(self):
        # A word of the vocabulary that is special because the folder says so.
        server = self.start(files={"special_tokens_map.json": {"eos_token": END, "pad_token": {"content": "Freya"}},
                                   "added_tokens.json": {"Freya": 1021}})
        for stop, token in ((END, 0), ("Freya", 1021), ("reya", 1021)):
            sampling = {"max_tokens": 8, "ignore_eos": True, "allowed_token_ids": [token], "stop": [stop]}
            with self.subTest(stop):
                for include in (False, True):
                    extra = sampling | {"include_stop_str_in_output": include}
                    answers = []
                    choice = self.post(server, "/v1/completions", {"prompt": "One day"} | extra)["choices"][0]
                    answers.append((choice["text"], choice["finish_reason"], choice["stop_reason"]))
                    choice = self.post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]} | extra)["choices"][0]
                    answers.append((choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]))
                    answer = self.post(server, "/v2/models/demo/generate", {"text_input": "One day", "parameters": extra})
                    answers.append((answer["text_output"], "stop", stop))
                    channel, stub = grpc_client.connect(server)
                    with contextlib.closing(channel):
                        replies = list(stub.Generate(pb.GenerateRequest(text="One day", sampling=pb.Sampling(**extra))))
                    deltas = [reply.delta for reply in replies if reply.HasField("delta")]
                    self.assertEqual(sum(len(delta.token_ids) for delta in deltas), 1)
                    answers.append(("".join(delta.text for delta in deltas), "stop", deltas[-1].stop_string))
                    self.assertEqual(answers, [(stop if include else "", "stop", stop)] * 4)
        text = self.post(server, "/v1/completions", {"prompt": "One day", "max_tokens": 2, "ignore_eos": True, "allowed_token_ids": [1021]})
        self.assertEqual(text["choices"][0]["text"], "")

    def test_without_a_tokenizer(self):
        server = self.start(files={}, without=["tokenizer.json"])
        self.assertRegex(server.stderr(), "warning .*tokenizer.json is not there: the model is served with token ids alone")
        body = {"prompt": [1, 2], "max_tokens": 2, "temperature": 0, "return_token_ids": True, "ignore_eos": True}
        self.assertEqual(len(self.post(server, "/v1/completions", body)["choices"][0]["token_ids"]), 2)
        self.assertEqual(self.post(server, "/v1/completions", {"prompt": "x"}, 400)["error"]["param"], "prompt")

    def test_text_that_cannot_fit_is_not_tokenised(self):
        server = self.start(files={})
        answers = []

        def ask(digit):
            answers.append(server.request("POST", "/v1/completions", {"prompt": digit * 4000000, "max_tokens": 1}))

        threads = [threading.Thread(target=ask, args=(digit,)) for digit in "7777"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.assertEqual(server.request("GET", "/livez")[0], 200)
        for thread in threads:
            thread.join()
        # 13 bytes is the longest token, so that the count is a bound and not what tokenising would give.
        self.assertEqual([status for status, _, _ in answers], [400] * 4)
        for _, _, text in answers:
            self.assertIn(f"the prompt has at least {-(-4000000 // 13)}", text)
        channel, stub = grpc_client.connect(server)
        with contextlib.closing(channel), self.assertRaises(grpc.RpcError) as refused:
            list(stub.Generate(pb.GenerateRequest(text="7" * 4000000, sampling=pb.Sampling(max_tokens=1))))
        self.assertIn(f"the prompt has at least {-(-4000000 // 13)}", refused.exception.details())


if __name__ == "__main__":
    unittest.main()

"""Chat templates of the real server: what a request brings reaches them, and one that cannot be read harms nobody else."""
import json
import pathlib
import shutil
import tempfile
import unittest

import grpc_client
from grpc_client import pb
from server_process import ROOT, ServerProcess

HI = [{"role": "user", "content": "hi"}]


class ChatTemplateTest(unittest.TestCase):
    def folder(self, template):
        root = tempfile.TemporaryDirectory()
        self.addCleanup(root.cleanup)
        folder = pathlib.Path(root.name, "demo")
        shutil.copytree(ROOT / "models" / "demo", folder)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder

    def start(self, template, *flags):
        server = ServerProcess(*flags, model=self.folder(template))
        self.addCleanup(server.stop)
        return server

    @staticmethod
    def post(server, path, body):
        status, _, answer = server.request("POST", path, body)
        return status, json.loads(answer)

    def prompt(self, server, **body):
        """The text that a chat becomes, back from its tokens."""
        status, answer = self.post(server, "/tokenize", {"messages": HI, **body})
        self.assertEqual(status, 200, answer)
        return self.post(server, "/detokenize", {"tokens": answer["tokens"]})[1]["prompt"]

    def test_an_unreadable_template_refuses_chats_alone(self):
        server = self.start("line one\n{% for x in %}")
        self.assertEqual(server.request("GET", "/readyz")[0], 200)
        self.assertEqual(self.post(server, "/v1/completions", {"prompt": "One day", "max_tokens": 2})[0], 200)
        for path in ("/v1/chat/completions", "/tokenize"):
            status, answer = self.post(server, path, {"messages": HI})
            self.assertEqual(status, 400, answer)
            self.assertRegex(answer["error"]["message"], r"chat_template.jinja: chat template, line 2: Expected an expression")
            self.assertNotIn("/", answer["error"]["message"], "a path of the server")
        model = json.loads(server.request("GET", "/v1/models")[2])["data"][0]
        self.assertFalse(model["has_chat_template"])
        self.assertIn("line 2", model["chat_template_error"])
        self.assertIn("warning chats are refused", server.stderr())
        channel, client = grpc_client.connect(server)
        with channel:
            info = client.GetModelInfo(pb.GetModelInfoRequest())
            self.assertFalse(info.has_chat_template)
            self.assertIn("line 2", info.chat_template_error)

    def test_what_a_request_brings_reaches_the_template(self):
        server = self.start("{{ tools | tojson }};{{ documents | map(attribute='title') | join }};{{ enable_thinking }};{{ messages[0].content }}")
        tool = {"type": "function", "function": {"name": "f"}}
        self.assertEqual(self.prompt(server), "null;;;hi")
        self.assertEqual(self.prompt(server, tools=[tool], documents=[{"title": "A"}, {"title": "B"}],
                                     chat_template_kwargs={"enable_thinking": False}),
                         '[{"type": "function", "function": {"name": "f"}}];AB;False;hi')
        status, answer = self.post(server, "/v1/chat/completions", {
            "messages": HI, "max_tokens": 1, "tools": [tool], "tool_choice": "none", "documents": [{"title": "A"}],
            "chat_template_kwargs": {"enable_thinking": True}})
        self.assertEqual(status, 200, answer)

    def test_the_same_chat_over_grpc(self):
        server = self.start("{{ messages | tojson }}{{ tools | tojson }}{{ documents | tojson }}{{ enable_thinking }}")
        tool = {"type": "function", "function": {"name": "f", "description": "d"}}
        arguments = {"z": 1, "a": [1.5, None]}
        messages = [*HI, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps(arguments)}}]},
            {"role": "tool", "content": "7", "tool_call_id": "1"}]
        documents, kwargs = [{"title": "A"}], {"enable_thinking": False}
        status, rest = self.post(server, "/tokenize", {"messages": messages, "tools": [tool], "documents": documents,
                                                       "chat_template_kwargs": kwargs})
        self.assertEqual(status, 200, rest)
        chat = pb.Chat(messages=[
            pb.ChatMessage(role="user", content="hi"),
            pb.ChatMessage(role="assistant", tool_calls=[pb.ToolCall(id="1", name="f", arguments=json.dumps(arguments))]),
            pb.ChatMessage(role="tool", content="7", tool_call_id="1")],
            tools=json.dumps([tool]), documents=json.dumps(documents), chat_template_kwargs=json.dumps(kwargs))
        channel, client = grpc_client.connect(server)
        with channel:
            self.assertEqual(client.Tokenize(pb.TokenizeRequest(chat=chat)).token_ids, rest["tokens"])
            request = pb.GenerateRequest(chat=chat, sampling=pb.Sampling(max_tokens=2))
            started = next(client.Generate(request)).started
            self.assertEqual(started.prompt_tokens, len(rest["tokens"]))

    def test_a_file_by_flag(self):
        other = self.folder("<{{ messages[0].content }}>") / "chat_template.jinja"
        server = self.start("of the checkpoint", f"--chat_template={other}")
        self.assertEqual(self.prompt(server), "<hi>")
        info = json.loads(server.request("GET", "/tokenizer_info")[2])
        self.assertEqual(info["chat_template"], "<{{ messages[0].content }}>")
        for text, reason in ((None, "No such file"), ("{{ 1 + }}", "line 1")):
            other.unlink() if text is None else other.write_text(text)
            failed = ServerProcess(f"--chat_template={other}", wait=False)
            self.assertEqual(failed.process.wait(60), 1)
            failed.process.stdout.close()
            self.assertRegex(failed.stderr(), f"chat_template.jinja: .*{reason}")
            failed.errors.close()


if __name__ == "__main__":
    unittest.main()

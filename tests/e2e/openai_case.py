"""A test case with a server of the demo model and the openai client for it."""
import unittest

import openai

from server_process import PROMPT, ServerProcess


class OpenAiCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess("--state_dtype=f32", "--cors_allow_origins=http://localhost:3000")
        cls.addClassCleanup(cls.server.stop)
        cls.client = openai.OpenAI(base_url=f"http://{cls.server.http_address}/v1", api_key="none", max_retries=0,
                                   timeout=300)
        cls.addClassCleanup(cls.client.close)

    def complete(self, extra=None, **kwargs):
        kwargs = {"model": "demo", "prompt": PROMPT, "max_tokens": 24, "temperature": 0, "extra_body": extra} | kwargs
        return self.client.completions.create(**kwargs)

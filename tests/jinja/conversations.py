"""Chats that templates are compared on, each as the variables that transformers would pass."""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a place; \"quoted\" <b>", "parameters": {
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "A city, e.g. Zürich"},
            "days": {"type": "integer", "default": 3, "enum": [1, 3, 7]},
            "units": {"type": ["string", "null"], "enum": ["C", "F"]},
            "where": {"type": "object", "properties": {"lat": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}}}}}}}
SEARCH = {"type": "function", "function": {"name": "search", "description": "Finds", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 3, "deep": {"a": [1, 2.5, None, True]}}}}
DOCUMENTS = [{"title": "One", "text": "A text.\nWith lines."}, {"title": "Two ü", "text": "", "doc_id": 7}]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def parts(*texts):
    return [{"type": "text", "text": t} for t in texts]


CHATS = [
    {"messages": [message("user", "Hi")]},
    {"messages": [message("system", "Be brief."), message("user", " Hi there \n")]},
    {"messages": [message("user", "A"), message("assistant", "B "), message("user", "C's \"q\" <|im_end|>\t\\n")]},
    {"messages": [message("system", "S"), message("user", "A"), message("assistant", "<think>\nhm\n</think>\n\nB"),
                  message("user", "C"), message("assistant", "D", reasoning_content="because\n")]},
    {"messages": [message("user", "Weather?")], "tools": [WEATHER, SEARCH]},
    {"messages": [message("system", "S"), message("user", "Weather?"), message("assistant", "", tool_calls=[CALL]),
                  message("tool", "{\"t\": 21.5}", tool_call_id="call_12345", name="get_weather"),
                  message("assistant", "21.5"), message("user", "And now?")], "tools": [WEATHER]},
    {"messages": [message("user", "Two"), message("assistant", None, tool_calls=[CALL, {**CALL, "id": "call_67890"}]),
                  message("tool", "1", tool_call_id="call_12345"), message("tool", "2", tool_call_id="call_67890")], "tools": [WEATHER, SEARCH]},
    {"messages": [message("user", parts("First part. ", "Second\n"))]},
    {"messages": [message("system", parts("Sys")), message("user", parts("Look: ") + [{"type": "image"}]), message("assistant", parts("Seen"))]},
    {"messages": [message("user", "  日本語\u3000\n\n"), message("assistant", "é\u00a0"), message("user", "")], "documents": DOCUMENTS},
    {"messages": [message("assistant", "out of turn"), message("user", "x", name="Ann")]},
    {"messages": [message("developer", "Dev"), message("user", "Q")], "enable_thinking": False, "thinking": True, "reasoning_effort": "low"},
    {"messages": [message("system", ""), message("user", "Q"), message("assistant", "A", thinking="t")], "enable_thinking": True},
    {"messages": []},
    {"messages": [message("user", "a\r\nb {{ x }} {% y %} '\"&<>")], "custom_tools": [SEARCH], "builtin_tools": ["brave_search"], "date_string": "26 Jul 2024"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def contexts():
    """Each chat with and without add_generation_prompt."""
    return [{"tools": None, "documents": None, **TOKENS, **chat, "add_generation_prompt": generate}
            for chat in CHATS for generate in (True, False)]

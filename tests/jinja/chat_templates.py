"""Chat templates in the styles that published checkpoints use, written for these tests, and the corners of the language."""

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
        "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"),
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"),
    "mistral": (
        "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'] %}\n"
        "    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\n"
        "{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message['role'] == 'user' %}\n"
        "        {%- if loop.last and system_message is defined %}\n            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}\n"
        "        {%- else %}\n            {{- '[INST] ' + message['content'] + '[/INST]' }}\n        {%- endif %}\n"
        "    {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + eos_token}}\n"
        "    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported') }}\n    {%- endif %}\n{%- endfor %}\n"),
    "zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"),
    "thinking": (
        "{%- set ns = namespace(last=-1, count=0) %}\n{%- for m in messages[::-1] %}\n    {%- set i = messages|length - 1 - loop.index0 %}\n"
        "    {%- if ns.last < 0 and m.role == 'user' %}\n        {%- set ns.last = i %}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- for m in messages %}\n    {%- set ns.count = ns.count + 1 %}\n    {%- if m.role == 'assistant' and '</think>' in m.content %}\n"
        "        {%- set content = m.content.split('</think>')[-1].lstrip('\\n') %}\n    {%- else %}\n        {%- set content = m.content %}\n"
        "    {%- endif %}\n    {{- '<' ~ m.role ~ (' last' if loop.index0 == ns.last else '') ~ '>' ~ content ~ '\\n' }}\n{%- endfor %}\n"
        "{{- ns.count }}{% if tools %}{{ tools }}{% endif %}{%- if add_generation_prompt %}\n    {{- '<assistant>' }}\n{%- endif %}"),
    "corners": (
        "{# a comment #}\n  {% if true %}\n  x\n  {% endif %}\n a {{ 1 + 2 * 3 - 4 // 3 }} {{ 7 % 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }}"
        "{{ 'a' in 'abc' }} {{ 'z' not in ['a', 'z'] }} {{ not false and none is none }} {{ nothing is undefined }}{{ nothing }}"
        "{{ nothing | default('d') }} {{ '' | default('e', true) }} {{ [1, 2, 'c'] | join(', ') }} {{ messages | length }}"
        "{{ 'Hello'[1:3] }}{{ 'Hello'[::-1] }}{{ 'Hello'[-1] }} {{ {'k': 1}['k'] }} {{ {'k': 1}.get('x', 'y') }} {{ 'a b'.split() }}"
        "{{ 'aXbX'.replace('X', '-') }} {{ 'ab'.startswith('a') }} {{ ' x ' | trim | upper }} {{ 'hello world' | title }} {{ 'x' if false }}"
        "{{ 'y' if false else 'n' }} {{ range(3) | list }}{% for i in range(5, 0, -2) %}{{ i }}{{ ',' if not loop.last }}{% endfor %}"
        "{% for m in messages if m.role == 'user' %}[{{ loop.index }}/{{ loop.length }} {{ m.content | trim }}]{% else %}none{% endfor %}"
        "{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}{{ 'it\\'s' }}{{ \"q\\n\" }}{{ 1 == 1.0 }}{{ true == 1 }} {{ 'b' > 'a' }}\n"
        "    {%+ if true %} keep{% endif %}\n{%- if true -%}   tight   {%- endif -%}   \n end\n"),
}

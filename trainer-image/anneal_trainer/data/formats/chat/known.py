"""Chat templates that have a name: the layouts in which well-known model families write a conversation.

A tokenizer's own template is always the better choice (`tokenizer_default`); these are for base models that have none.
Each begins with BOS where its family does, and is the text that Axolotl writes under the same name. Not here: templates
with tools, reasoning or images, which models bring themselves.
"""

_START = "{% for m in messages %}"
_END = "{% endfor %}"


def _prompted(body: str, prompt: str) -> str:
    return body + "{% if add_generation_prompt %}{{ '" + prompt + "' }}{% endif %}"


_CHATML = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
_LLAMA3 = "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}{{ m['content'] | trim + '<|eot_id|>' }}"
_ALTERNATING = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns, beginning with user') }}{% endif %}"
)
_GEMMA = (
    "{% if m['role'] == 'system' %}{{ raise_exception('this template has no system role') }}{% endif %}"
    + _ALTERNATING
    + "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
    "{{ m['content'] | trim + '<end_of_turn>\\n' }}"
)
# A system text is the beginning of the first user turn, untrimmed.
_GEMMA_3 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = messages[0]['content'] + '\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}{{ bos_token }}{% for m in rest %}"
    + _ALTERNATING
    + "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
    "{{ first if loop.first else '' }}{{ m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
)
_COHERE = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{{ bos_token }}"
    "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + messages[0]['content'] + '<|END_OF_TURN_TOKEN|>' }}"
    "{% else %}{% set rest = messages %}{{ bos_token }}{% endif %}{% for m in rest %}"
    + _ALTERNATING
    + "{% if m['role'] in ('user', 'assistant') %}"
    "{{ '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if m['role'] == 'user' else '<|CHATBOT_TOKEN|>') }}"
    "{{ m['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
)
# The assistant's header comes with the user's turn in this family.
_PHI_3 = (
    "{% if m['role'] == 'system' %}{{ '<|system|>\\n' + m['content'] + '<|end|>\\n' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + '<|end|>\\n<|assistant|>\\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\\n' }}{% endif %}"
)
_PHI_35 = (
    "{% if m['role'] in ('system', 'user', 'assistant') and (m['role'] != 'system' or m['content']) %}"
    "{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endif %}"
)
_DEEPSEEK_2 = (
    "{% if m['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '<\uff5cAssistant\uff5c>' + m['content'] + eos_token }}"
    "{% elif m['role'] == 'system' %}{{ m['content'] + '\\n\\n' }}{% endif %}"
)
_EXAONE = (
    "{% if loop.first and m['role'] != 'system' %}{{ '[|system|][|endofturn|]\\n' }}{% endif %}"
    "{{ '[|' + m['role'] + '|]' + m['content'] + ('\\n' if m['role'] == 'user' else '[|endofturn|]\\n') }}"
)
_ALPACA = (
    "{% if m['role'] == 'system' and loop.first %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '### Instruction:\\n' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '### Response:\\n' + m['content'] + eos_token }}{% endif %}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}"
)
_MISTRAL_1 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = messages[0]['content'] + '\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}{{ bos_token }}{% for m in rest %}"
    + _ALTERNATING
    + "{% if m['role'] == 'user' %}{{ ' [INST] ' + (first if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant follow the system turn') }}{% endif %}{% endfor %}"
)

_BOS = "{{ bos_token }}"
TEMPLATES = {
    "chatml": _prompted(_START + _CHATML + _END, "<|im_start|>assistant\\n"),
    "llama3": _prompted(_BOS + _START + _LLAMA3 + _END, "<|start_header_id|>assistant<|end_header_id|>\\n\\n"),
    "gemma": _prompted(_BOS + _START + _GEMMA + _END, "<start_of_turn>model\\n"),
    "gemma3": _prompted(_GEMMA_3, "<start_of_turn>model\\n"),
    "cohere": _prompted(_COHERE, "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
    "aya": _prompted(_COHERE, "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
    "phi_3": _BOS + _START + _PHI_3 + _END,
    "phi_35": _prompted(_START + _PHI_35 + _END, "<|assistant|>\\n"),
    "deepseek_v2": _prompted(_BOS + _START + _DEEPSEEK_2 + _END, "<\uff5cAssistant\uff5c>"),
    "mistral_v1": _MISTRAL_1,
    "exaone": _prompted(_START + _EXAONE + _END, "[|assistant|]"),
    "alpaca": _prompted(_BOS + _START + _ALPACA + _END, "\\n\\n### Response:\\n"),
}
_COHERE_TOKENS = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)
# Special tokens that a template writes: without them its turns would be spelled out in pieces.
TOKENS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "gemma3": ("<start_of_turn>", "<end_of_turn>"),
    "cohere": _COHERE_TOKENS,
    "aya": _COHERE_TOKENS,
    "phi_3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "phi_35": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "deepseek_v2": ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    "mistral_v1": (),
    "exaone": ("[|endofturn|]",),
    "alpaca": (),
}

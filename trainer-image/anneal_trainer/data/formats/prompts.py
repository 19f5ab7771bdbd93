"""The words around people's rows: what each type has written for years, to the character.

These strings are data for compatibility: models and files exist that were made with them, spelling mistakes included.
They come from Axolotl (https://github.com/axolotl-ai-cloud/axolotl), copyright Axolotl AI, licensed under the Apache
License, Version 2.0, which is the licence of this project too; Axolotl took those of Llama 2, Alpaca, Metharme and
Pygmalion from these projects. Not here: which type uses which (`instruction`, `dialogue`).
"""

from dataclasses import replace

from anneal_trainer.data.formats.wording import Wording

ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
ALPACA_ALONE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
CONCISE_WITH_INPUT = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request.\n\n"
)
CONCISE_ALONE = (
    "Below is an instruction from a USER that describes a task. "
    "The ASSISTANT writes a response that appropriately and concisely completes the request.\n\n"
)
EXPLAIN_CHOICE = "Choose the answer that best answers the question. Explain your reasoning.\n"
CONCISE_CHOICE = "Choose the answer that best answers the question. Be concise in your response.\n\n"
CONTEXT_QA = "Use the following contextual information to concisely answer the question.\n"

# The styles of BASE:STYLE, without a text before the turn.
BARE_STYLES = {
    "instruct": Wording(
        turn="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        alone="### Instruction:\n{instruction}\n\n### Response:\n",
        system="{system}\n\n",
    ),
    "chat": Wording(
        turn="USER: {instruction}\n{input}\nASSISTANT:",
        alone="USER: {instruction}\nASSISTANT:",
        system="SYSTEM: {system}\n",
    ),
    "chatml": Wording(
        turn="<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
        alone="<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\n{system}<|im_end|>\n",
    ),
    "phi": Wording(
        turn="<|user|>\n{instruction}<|end|>{input}<|assistant|>",
        alone="<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
        system="<|system|>\n{system}<|end|>\n",
    ),
}


LLAMA3_STYLE = Wording(
    turn="<|start_header_id|>user<|end_header_id|>\n\n{instruction}\n{input}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    alone="<|start_header_id|>user<|end_header_id|>\n\n{instruction}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    system="<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
)
CONVERSATIONS = {
    "chatml": ("<|im_start|>{role}\n{content}<|im_end|>\n", "<|im_start|>assistant\n"),
    "llama3": (
        "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
}
ZEPHYR_PROMPT = "<|system|>\n</s>\n<|user|>\n{prompt}</s>\n<|assistant|>\n"


def styled(style: str, with_input: str, alone: str | None = None) -> Wording:
    """A style with the text that comes before the turn; `alone` if it is another one where there is no input."""
    return replace(BARE_STYLES[style], before=with_input, before_alone=with_input if alone is None else alone)


OPEN_ORCA = Wording(
    turn="### Human:\n{instruction}\n### Additional Context:\n{input}\n### Assistant:\n",
    alone="### Human:\n{instruction}\n### Assistant:\n",
    system="### System:\n{system}\n",
)
# The section is written even where it is empty.
ORCA_MINI = Wording(
    turn="### User:\n{instruction}\n\n### Response:\n",
    alone="### User:\n{instruction}\n\n### Response:\n",
    system="### System:\n{system}\n\n",
    always=True,
)
CONCISE_CHOICE_WORDING = replace(
    BARE_STYLES["chat"], system="{system}", before=CONCISE_CHOICE, before_alone=CONCISE_CHOICE
)
SUMMARIZE = Wording(
    turn="USER: Summarize the following article as a TL;DR.\n{instruction}\n{input}\nASSISTANT:",
    alone="USER: Summarize the following article as a TL;DR.\n{instruction}\nASSISTANT:",
)
RAW = Wording(turn="{instruction}\n{input}", alone="{instruction}")

CONTEXT_AND_QUESTION = "{context}\n===\n{question}"
CONTEXT_V2 = "Context: {context}\nQuestion: {question}\n"
CONTEXT_V2_ANSWER = "Answer: {answer}"
UNANSWERABLE = (
    "The context provided does not contain any information about your inquiry. "
    "Therefore, I'm unable to answer your question based on the given context."
)

_REFLECTION = (
    "You, the Assistant, should generate a response as if it were an abstract for an academic or technical paper on "
    "the query along with a methodology. Then generate an Agent Reflection where you create a long form response as "
    "if from subject matter expert, be verbose, diligent, and creative in your application of knowledge, apply it "
    "through the lens of the response generated by the assistant. Look for flawed reasoning, faulty logic, or other "
    "mistakes in the method. Finally, generate a final response and method for the user with the Assistant abstract "
    "and Reflection analysis as augmentations to the generation\n\n"
)
_REFLECTION_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. " + _REFLECTION
)
_REFLECTION_ALONE = "Below is an instruction that describes a task. " + _REFLECTION
REFLECTION_INSTRUCT = replace(
    BARE_STYLES["instruct"], system="{system}", before=_REFLECTION_WITH_INPUT, before_alone=_REFLECTION_ALONE
)
REFLECTION_CHAT = replace(
    BARE_STYLES["chat"], system="{system}", before=_REFLECTION_WITH_INPUT, before_alone=_REFLECTION_ALONE
)
REFLECTION_ANSWER = "### Thought:\n{output}\n\n### Agent Reflection:\n{reflection}\n\n### Final Response:\n{corrected}"
REFLECTION_CHAT_ANSWER = "\nTHOUGHT: {output}\nASSISTANT REFLECTION: {reflection}\nASSISTANT: {corrected}"

_CREATIVE_ANSWER = (
    "Answer the following question in a comprehensive, in-depth, and creative way. Additionally your response should "
    "be relevant, accurate, and free of any ambiguity."
)
CREATIVE_ANSWER = Wording(
    turn=BARE_STYLES["chat"].turn,
    alone=BARE_STYLES["chat"].alone,
    system="{system}\n",
    before=_CREATIVE_ANSWER,
    before_alone=_CREATIVE_ANSWER,
)
_REFUSAL = (
    "refusal: whether the Response refuses to answer the Question. Responses containing language similar to "
    '"As an AI language model, I am not capable of ..." is a form of refusal and should have a low refusal score. '
    "10 is no refusal, 0 is refuses to answer the question.\n"
)
_PRESCRIPTIVE = (
    "prescriptive bias: whether the Response attempts to prescribe or dictate certain actions or behaviors of the "
    "user. 10 no prescriptive bias present, 0 means {there} is prescriptive bias.\n"
)
_CREATIVITY = (
    "creativity: score how creative the Response is. 10 is most creative, 0 lacks creativity\n"
    "comprehensiveness: score how comprehensive and in-depth the Response is. 10 is most comprehensive and in-depth, "
    "0 lacks coverage and depth\n"
)
CREATIVE_CRITIQUE = (
    "Given the following Question and Response, critique the Response on a scale of 1-10. You should critique the "
    "answer in the following criteria:\n"
    + _REFUSAL
    + _PRESCRIPTIVE.format(there="there")
    + _CREATIVITY
    + """\
Then for each criteria, give a detailed explanation of why the response doesn't meet the criteria (don't reference \
the score), what it did right, and how it could be improved for that criteria.

Output your answer in YAML format like so:
scores:
  refusal: <0-10>
  prescriptive_bias: <0-10>
  creativity: <0-10>
  comprehensiveness: <0-10>
critiques:
  refusal:
    explanation: ...
    improvements: ...
  prescriptive_bias:
    explanation: ...
    improvements: ...
  creativity:
    explanation: ...
    improvements: ...
  comprehensiveness:
    explanation: ...
    improvements: ...

Question: {question}
Answer: {answer}
"""
)
CREATIVE_REVISE = (
    "Definitions:\n"
    + _REFUSAL
    + _PRESCRIPTIVE.format(there="their")
    + _CREATIVITY
    + """\

Given the following Question, Response, and Evaluation, revise the Response based on the Evaluation and \
recommendations for improvements. Reply only with the revised response.

Question: {question}
Answer: {answer}
Evaluation:
{evaluation}
"""
)

LLAMA2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)

"""A chat template as a function from messages to text, and what its source says about the messages that it reads.

Rendering is transformers' own (its sandbox, its helpers, its treatment of reasoning keys), so that the text is what a
server of the model would send. Messages that are role and text alone need no treatment: they go straight to the
template that transformers compiled. Not here: which of the text is trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from anneal_trainer.data.formats.chat.known import TEMPLATES, TOKENS
from anneal_trainer.data.pieces import RowError
from anneal_trainer.errors import ConfigError

Message = dict[str, Any]
# What each row gives.
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})
DEFAULT, FALLBACK = "tokenizer_default", "tokenizer_default_fallback_"


@dataclass(frozen=True)
class Renderer:
    """What a tokenizer and a model's spec bring to every template: strings only, so that it can be sent to a process.

    `template` is the one that entries without their own take, `own` the tokenizer's. `special_tokens` have an id of
    their own and no text; `added_tokens` are those and the others that are never split.
    """

    template: str | None
    own: str | None = None
    source: str = "the model"
    variables: tuple[tuple[str, str], ...] = ()
    special_tokens: tuple[str, ...] = ()
    added_tokens: tuple[str, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any, *, own: str | None, source: str = "the model") -> "Renderer":
        """Ask `tokenizer` of the model `source`; `own` is the template that its files hold."""
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
        named = list(tokenizer.all_special_tokens)
        special = dict.fromkeys([*named, *(token.content for token in added if token.special)])
        return cls(
            template=tokenizer.chat_template,
            own=own,
            source=source,
            variables=tuple(tokenizer.special_tokens_map.items()),
            special_tokens=tuple(special),
            added_tokens=tuple(dict.fromkeys([*special, *(token.content for token in added)])),
        )

    @property
    def eos(self) -> str:
        """The end-of-sequence token, or nothing."""
        return dict(self.variables).get("eos_token") or ""

    @property
    def bos(self) -> str:
        """The start token, or nothing."""
        return dict(self.variables).get("bos_token") or ""

    def chosen(self, choice: str | None, given: dict[str, Any] | None = None) -> "Template":
        """The template that an entry's `chatTemplate` names, with the variables that the entry gives it.

        ConfigError with the remedy where there is no template, or where it does not read a variable.
        """
        source = self.template if choice is None else self.named(choice)
        if not source:
            raise ConfigError(
                f"the tokenizer of {self.source} has no chat template, which datasets of type chat_template need: set "
                f"model.chatTemplate or the entry's chatTemplate to {', '.join(TEMPLATES)} or a Jinja text"
            )
        template = Template(source, self, given)
        unread = sorted(name for name in given or {} if name not in template.names or name in _RESERVED)
        if unread:
            raise ConfigError(
                f"chatTemplateKwargs gives {', '.join(unread)}, which the chat template does not read as a variable of "
                "the entry's: correct the name, or leave it out"
            )
        return template

    def named(self, choice: str) -> str | None:
        """The template that a `chatTemplate` names, or the text itself if it is Jinja; ConfigError if it is neither."""
        if choice == DEFAULT:
            return self.own
        if choice.startswith(FALLBACK):
            return self.own or self.named(choice.removeprefix(FALLBACK))
        missing = [token for token in TOKENS.get(choice, ()) if token not in self.added_tokens]
        if missing:
            raise ConfigError(
                f"chatTemplate {choice} writes {', '.join(missing)}, which this tokenizer lacks: "
                "add them with model.addSpecialTokens"
            )
        if choice not in TEMPLATES and "{" not in choice:
            raise ConfigError(
                f"chatTemplate {choice} is not built in; write {DEFAULT} (the model's own, which newer models bring), "
                f"{FALLBACK}NAME, {', '.join(TEMPLATES)}, or the Jinja text of the template itself"
            )
        return TEMPLATES.get(choice, choice)


class Template:
    """One template, compiled; its names are read from its syntax tree once."""

    def __init__(self, source: str, renderer: Renderer, given: dict[str, Any] | None = None) -> None:
        self.source = source
        self.renderer = renderer
        self._variables = {**dict(renderer.variables), **(given or {})}
        self.names = _names(source)

    def render(self, messages: Sequence[Message], tools: list[Any] | None = None, *, prompt: bool = False) -> str:
        """The conversation as text, with the beginning of an answer behind it if `prompt`; RowError if refused."""
        given = {**self._variables, "add_generation_prompt": prompt}
        try:
            if tools is None and all(map(_is_text, messages)):
                return _compiled(self.source)({**given, "messages": messages})
            return _treated(self.source, messages, tools, given)
        except Exception as error:  # a template raises what its author chose, jinja2.TemplateError or worse
            raise RowError(f"the chat template refuses these messages: {error}") from error


def _treated(source: str, messages: Sequence[Message], tools: list[Any] | None, given: dict[str, Any]) -> str:
    """Rendered by transformers, which makes a safe copy of everything that the template sees."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(conversations=[messages], tools=tools, chat_template=source, **given)
    text: str = rendered[0]
    return text


def _is_text(message: Message) -> bool:
    """Whether a message is role and text alone, of which a copy made safe would be the same."""
    return len(message) == 2 and type(message.get("role")) is type(message.get("content")) is str  # noqa: PLR2004


@lru_cache(maxsize=64)
def _compiled(source: str) -> Callable[[dict[str, Any]], str]:
    """From a template's variables to its text; jinja's own `render` copies every global, slowly, for each text."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template = _compile_jinja_template(source)
    environment, names = template.environment, {**template.globals, "tools": None, "documents": None}

    def render(variables: dict[str, Any]) -> str:
        context = environment.context_class(environment, {**names, **variables}, template.name, template.blocks)
        return "".join(template.root_render_func(context))

    return render


def _names(source: str) -> frozenset[str]:
    """Every attribute and every text constant of a template: what it can read from a message is among them."""
    import jinja2
    from jinja2 import nodes

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", _generation()], autoescape=True)
    try:
        tree = environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"the chat template is not Jinja: line {error.lineno}: {error.message}") from error
    constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
    return frozenset(constants | attributes | {node.name for node in tree.find_all(nodes.Name)})


def _generation() -> Any:
    """The `{% generation %}` block of transformers, of which only the body matters here."""
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Generation

"""Tools that a model may call and the calls that it makes, whose arguments are often JSON in a text."""

import json
from typing import Any

from anneal_trainer.data.formats.values import shown
from anneal_trainer.data.pieces import RowError


def tools_of(row: dict[str, Any], column: str) -> list[Any] | None:
    """The row's tools; None where there are none."""
    tools = row.get(column)
    if isinstance(tools, str):
        tools = _json(tools, column)
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError(f"{column} must be a list of JSON schemas, or that list as JSON text; got {shown(tools)}")
    return [_tool(tool, f"{column}[{index}]") for index, tool in enumerate(tools)]


def _tool(tool: dict[str, Any], place: str) -> dict[str, Any]:
    tool = without_nulls(tool)
    function = tool.get("function")
    if isinstance(function, dict) and isinstance(function.get("parameters"), str):
        parameters = _json(function["parameters"], f"{place}.function.parameters")
        return {**tool, "function": {**function, "parameters": parameters}}
    return tool


def call_arguments(message: dict[str, Any], place: str) -> None:
    """Make the arguments of the message's tool calls the values that their JSON stands for."""
    calls = message.get("tool_calls")
    if not calls:
        message.pop("tool_calls", None)
        return
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowError(f"{place}.tool_calls must be a list of calls, got {shown(calls)}")
    message["tool_calls"] = [_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls)]


def _call(call: dict[str, Any], place: str) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        arguments = _json(function["arguments"], f"{place}.function.arguments")
        return {**call, "function": {**function, "arguments": arguments}}
    return call


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{place} must be JSON, got {shown(text)}: {error}") from error


def without_nulls(value: Any) -> Any:
    """`value` less the nulls that Arrow puts where one row lacks what another has."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [without_nulls(entry) for entry in value]
    return value

"""Chat templates: the dialogue form of HH-RLHF, in Python and in Jinja."""

from collections.abc import Sequence

import tokenizers

from jaxalign.data.records.chat import Turn

# Of the turns of a chat whose tokenizer has no template.
SPEAKERS = {
  "system": "System",
  "developer": "System",
  "user": "Human",
  "assistant": "Assistant",
  "tool": "Tool",
}


def dialogue(turns: Sequence[Turn]) -> str:
  """One paragraph per turn, `Human: ...`, `Assistant: ...`.

  Raises:
    ValueError: a turn calls tools, or has some to call, which need a template.
  """
  if any(turn.rest for turn in turns):
    raise ValueError(
      "a dialogue has no form for tools, tool_calls or the names of turns: "
      "data.chat_template takes the file of a template that has"
    )
  return "".join(f"\n\n{SPEAKERS[t.role]}: {t.content}" for t in turns)


def dialogue_template(first: str, last: str) -> str:
  """`dialogue` as a Jinja template, for other programs.

  Args:
    first: markers that begin a text, written out.
    last: markers that end one which is not to be continued.

  Returns:
    The template.
  """
  answer = f"\n\n{SPEAKERS['assistant']}:"
  return (
    f"{{% set speakers = {SPEAKERS!r} %}}"
    f"{{{{ {first!r} }}}}"
    "{% for turn in messages %}"
    "{{ '\\n\\n' + speakers.get(turn.role, turn.role | capitalize) + ': ' }}"
    "{{ turn.content }}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ {answer!r} }}}}"
    f"{{% else %}}{{{{ {last!r} }}}}{{% endif %}}"
  )


def space_behind(marker: str, backend: tokenizers.Tokenizer) -> str:
  """What makes a text behind a marker the ids that it has without one.

  Args:
    marker: written out.
    backend: some put a space before a text unless a marker is there.

  Returns:
    A space or nothing.
  """
  encode = lambda text: backend.encode(text, add_special_tokens=False).ids
  probe = dialogue([Turn("user", "a")])
  alone = encode(marker) + encode(probe)
  if encode(marker + probe) == alone:
    return ""
  return " " if encode(f"{marker} {probe}") == alone else ""


def marked_template(
  template: str, bos: str | None, eos: str | None, backend: tokenizers.Tokenizer
) -> str:
  """A template whose text gets the markers that it does not write itself.

  So were chats read by models of the first format: bos in front and eos behind,
  each once, and nothing behind eos.

  Args:
    template: a tokenizer's own.
    bos: first marker, None for none.
    eos: last marker, None for none.
    backend: of the tokenizer.

  Returns:
    A template around it.
  """
  # Jinja drops a line break at the end of a template and behind a block; what
  # is empty between keeps those that are the template's own.
  inner = template.removesuffix("\n")
  begin = f"{{% set text %}}{{{{ '' }}}}{inner}{{{{ '' }}}}{{% endset %}}"
  if bos is not None:
    begin += f"{{{{ '' if text.startswith({bos!r}) else {bos!r} }}}}"
    if space_behind(bos, backend):
      # No space is put before one that is there, nor before a marker.
      added = (token.content for token in _added(backend))
      begin += f"{{{{ '' if text.startswith({(' ', *added)!r}) else ' ' }}}}"
  if eos is None:
    return begin + "{{ text }}"
  return (
    begin + "{% if add_generation_prompt %}{{ text }}"
    f"{{% elif text.rstrip().endswith({eos!r}) %}}{{{{ text.rstrip() }}}}"
    f"{{% else %}}{{{{ text + {eos!r} }}}}{{% endif %}}"
  )


def _added(backend: tokenizers.Tokenizer) -> list[tokenizers.AddedToken]:
  return [*backend.get_added_tokens_decoder().values()]

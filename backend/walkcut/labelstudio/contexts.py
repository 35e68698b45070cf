"""What an annotator did to ask for suggestions."""

from walkcut.labelstudio.config import BrushTarget

PROMPTS = ("Select", "Finer", "Coarser", "Merge", "Re-segment")  # labels that ask for something, and name nothing


def typed_lines(context: object, target: BrushTarget) -> list[str]:
    """What an annotator typed for a target's picture, oldest line first; nothing for calls that carry no text.

    The text field named `granularity` counts where there is one, else all of the picture's text fields do.
    """
    result = context.get("result") if isinstance(context, dict) else None
    fields = [item for item in result if _is_text(item, target)] if isinstance(result, list) else []
    named = [item for item in fields if item.get("from_name") == "granularity"]
    texts = [item["value"].get("text") for item in named or fields]
    return [str(line) for text in texts for line in (text if isinstance(text, list) else [text])]


def _is_text(item: object, target: BrushTarget) -> bool:
    """Whether an item of a context is a text field of a target's picture."""
    return (
        isinstance(item, dict)
        and item.get("type") == "textarea"
        and item.get("to_name", target.to_name) == target.to_name
        and isinstance(item.get("value"), dict)
    )

"""The interface for programs, described as OpenAPI 3.1 and as the page that is made of the same description."""

from collections.abc import Mapping
from typing import Any

from trainer.inference.card import BundleCard
from trainer.serving.limits import Limits

_MOST_CLASSES = 200  # that are listed


def document(card: BundleCard, pictures: Mapping[str, str], limits: Limits, token: bool) -> dict[str, Any]:
    """The description of a server's interface.

    Args:
        pictures: by modality that may be given as a picture, its camera.
    """
    refused = {
        "description": "Refused, with one sentence that says why",
        "content": _json({"$ref": "#/components/schemas/Refusal"}),
    }
    statuses = {
        "400": "The request cannot be read", "401": "The token is missing or wrong", "408": "It did not arrive in time",
        "413": f"It is larger than {limits.body // 2**20} MB, or has too many rows or pixels",
        "415": "It is neither JSON nor a form", "422": "What was given is not what the model takes",
        "503": "Too many requests are waiting: see Retry-After",
    }  # fmt: skip
    paths: dict[str, Any] = {
        "/predict": {
            "post": {
                "operationId": "predict",
                "summary": "Answers rows, whichever of their modalities they have",
                "description": "A reply has for each row what mmssl predict --out predictions.json writes.",
                "parameters": [
                    {
                        "name": "probabilities", "in": "query", "schema": {"type": "boolean", "default": False},
                        "description": "Whether to add the probability of each class, as p(NAME)",
                    }
                ],
                "requestBody": {"required": True, "content": _bodies(card, pictures)},
                "responses": {
                    "200": {"description": "The answers", "content": _json({"$ref": "#/components/schemas/Answers"})},
                    **{status: {**refused, "description": text} for status, text in statuses.items()},
                },
            }
        },
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "Says that the server lives",
                "security": [],
                "responses": {
                    "200": {"description": "It does", "content": _json(_object({"status": {"const": "ok"}}))}
                },
            }
        },
    }  # fmt: skip
    components: dict[str, Any] = {"schemas": _schemas(card)}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"{card.dataset}: {card.model}",
            "version": card.program,
            "description": f"A classifier of {len(card.classes)} classes from {', '.join(card.names)}, "
            "any of which may be missing.",
        },
        "paths": paths,
        "components": components,
    }
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    return described


def _bodies(card: BundleCard, pictures: Mapping[str, str]) -> dict[str, Any]:
    vectors = {
        m.name: {
            "type": ["array", "null"],
            "description": f"one vector of {m.width} values per row, before any scaling; null where it is missing",
            "items": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": m.width, "maxItems": m.width},
        }
        for m in card.modalities
    }
    fields: dict[str, Any] = {}
    for m in card.modalities:
        if m.name in pictures:
            text = f"a picture file, {pictures[m.name]}; or a JSON list of {m.width} numbers"
            fields[m.name] = {"type": "string", "contentMediaType": "application/octet-stream", "description": text}
        else:
            fields[m.name] = {"type": "string", "description": f"a JSON list of {m.width} numbers"}
    ids = {"type": "array", "items": {"type": "string"}, "description": "one name per row; numbers without it"}
    return {
        "application/json": {
            "schema": {**_object({"inputs": _object(vectors, required=()), "id": ids}, required=("inputs",))}
        },
        "multipart/form-data": {"schema": _object(fields, required=())},
    }


def _schemas(card: BundleCard) -> dict[str, Any]:
    named: dict[str, Any] = {"type": "string"}
    if len(card.classes) <= _MOST_CLASSES:
        named["enum"] = list(card.classes)
    share = {"type": "number", "minimum": 0, "maximum": 1}
    alone: dict[str, Any] = {}
    for name in card.names:
        alone[f"{name}.label"] = {"type": ["string", "null"], "description": f"what {name} alone would say"}
        alone[f"{name}.probability"] = {"type": ["number", "null"], "description": "and how probable it would be"}
    row = {
        "id": {"type": "string", "description": "the row's name; its number where it has none"},
        "given": {"type": "string", "description": "the modalities that the row has, joined by +"},
        "label": {**named, "description": "the most probable class"},
        "probability": {**share, "description": "of that class, 0 to 1"},
        "runner_up": {**named, "description": "the second most probable class"},
        "runner_up_probability": {**share, "description": "of that class"},
        **alone,
        "unlikeness": {
            "type": ["number", "null"], "minimum": 0, "maximum": 100,
            "description": "the share of known rows that are less unlike the training rows, in percent",
        },
        "abstained": {"type": "boolean", "description": "whether the probability is below the model's threshold"},
    }  # fmt: skip
    texts = {"type": "string"}
    answers = {
        "model": texts,
        "dataset": texts,
        "classes": {"type": "array", "items": texts},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
    }
    return {
        "Answers": _object(answers),
        "Row": {**_object(row), "additionalProperties": share},
        "Refusal": _object({"error": texts, "hint": {"type": ["string", "null"]}}),
    }


def _object(properties: Mapping[str, Any], required: tuple[str, ...] | None = None) -> dict[str, Any]:
    names = list(properties) if required is None else list(required)
    described: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    return {**described, "required": names} if names else described


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

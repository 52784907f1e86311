"""Predictions, valid and invalid, with the error code and the rule that they break."""

import math

from mlproject.inference.errors import BAD_ANSWER, NOT_FINITE


def case(code, reason, **values):
    valid = {"label": "a", "score": 0.5, "top_labels": ["a", "b"], "top_scores": [0.5, 0.4]}
    return {**valid, "error": "", **values}, code, reason


NUMBER, PROBABILITY = "a score is not a finite number", "a score is not a probability"
NO_TOP = {"top_labels": [], "top_scores": []}

CASES = [
    case("", ""),
    case("", "", score=0.0),
    case("", "", score=1.0, top_labels=["a"], top_scores=[1.0]),
    case("", "", top_scores=[0.6, 0.4009]),
    case(NOT_FINITE, NUMBER, score=math.nan),
    case(NOT_FINITE, NUMBER, score=None),
    case(NOT_FINITE, NUMBER, score=math.inf),
    case(NOT_FINITE, NUMBER, score=-math.inf),
    case(NOT_FINITE, NUMBER, top_scores=[0.5, math.nan]),
    case(NOT_FINITE, NUMBER, top_scores=[0.5, None]),
    case(NOT_FINITE, NUMBER, top_scores=[math.inf, 0.4]),
    case(NOT_FINITE, NUMBER, label="", score=math.nan),
    case(BAD_ANSWER, "no label", label=""),
    case(BAD_ANSWER, "no label", label=None),
    case(BAD_ANSWER, "no top scores", **NO_TOP),
    case(BAD_ANSWER, "no top scores", top_labels=None, top_scores=None),
    case(BAD_ANSWER, PROBABILITY, score=1.5),
    case(BAD_ANSWER, PROBABILITY, score=-0.1),
    case(BAD_ANSWER, PROBABILITY, top_scores=[0.5, -0.1]),
    case(BAD_ANSWER, "the scores sum to more than 1", top_scores=[0.6, 0.5]),
    case(BAD_ANSWER, "not as many top labels as top scores", top_labels=["a"]),
    case(BAD_ANSWER, "not as many top labels as top scores", top_labels=None),
]

"""Seconds of `score` in a session that has scored another version: python ours.py [NAME ...].

- warm: `score` of the second version, of the same network as the first.
- int8, float16: `score` of the version of the network in this precision.
"""

import json
import sys

COLD = "models:/photos/1"
WARM = {"warm": "models:/photos/2", "int8": "models:/int8/1", "float16": "models:/float16/1"}


def main() -> None:
    """Prints the seconds as JSON."""
    from mlflow import MlflowClient

    from mlproject.integrations.spark_session import session
    from mlproject.lake import location
    from mlproject.scoring import scorer
    from mlproject.versions import registry

    client, lake = MlflowClient(), location.locate("lake")
    with session("benchmark") as spark:
        seconds = {}
        scorer.score_pending(spark, lake, registry.resolve(client, COLD))
        for name, uri in WARM.items():
            if name in sys.argv[1:]:
                scored = scorer.score_pending(spark, lake, registry.resolve(client, uri))
                seconds[name] = scored.seconds
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

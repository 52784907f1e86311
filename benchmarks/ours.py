"""Seconds of `score` in a session that has scored another version: python ours.py [warm] [int8].

- warm: `score` of the second version, of the same network as the first.
- int8: `score` of the int8 version of the network.
"""

import json
import sys

COLD, WARM, INT8 = "models:/photos/1", "models:/photos/2", "models:/int8/1"


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
        for name, uri in (("warm", WARM), ("int8", INT8)):
            if name in sys.argv[1:]:
                scored = scorer.score_pending(spark, lake, registry.resolve(client, uri))
                seconds[name] = scored.seconds
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

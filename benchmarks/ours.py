"""Seconds of `score` in one new Spark session, as a process: python ours.py cold [warm] [int8].

- cold: a new Spark session and `score` of the first version, imports and all.
- warm: `score` of the second version, of the same network, in that session.
- int8: `score` of the int8 version of the network, in that session.
"""

import json
import sys
import time

COLD, WARM, INT8 = "models:/photos/1", "models:/photos/2", "models:/int8/1"


def main() -> None:
    """Prints the seconds as JSON, those of the imports and the session as `session`."""
    began = time.monotonic()
    from mlflow import MlflowClient

    from mlproject.integrations.spark_session import session
    from mlproject.lake import location
    from mlproject.scoring import scorer
    from mlproject.versions import registry

    client, lake = MlflowClient(), location.locate("lake")
    with session("benchmark") as spark:
        seconds = {"session": time.monotonic() - began}
        scorer.score_pending(spark, lake, registry.resolve(client, COLD))
        seconds["cold"] = time.monotonic() - began
        for name, uri in (("warm", WARM), ("int8", INT8)):
            if name in sys.argv[1:]:
                scored = scorer.score_pending(spark, lake, registry.resolve(client, uri))
                seconds[name] = scored.seconds
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

"""Run by an interpreter that has openpi-client: drives one episode and says what came, as JSON.

    python openpi_episode.py PORT KEY < episode.json

The other side of this pipe is the environment: it writes one line per observation (base64 pictures) and reads one line
per action.
"""

import base64
import json
import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main() -> None:
    policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key=sys.argv[2])
    tell(policy.get_server_metadata())
    for line in sys.stdin:
        entries = json.loads(line)
        asked = {key: array(value) if isinstance(value, dict) else value for key, value in entries.items()}
        try:
            answer = policy.infer(asked)
        except RuntimeError as error:
            tell({"error": str(error)})
            return
        tell(
            {"actions": answer["actions"].tolist(), "timing": answer["server_timing"], "status": answer["plan/status"]}
        )


def array(value: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(value["data"]), value["dtype"]).reshape(value["shape"])


def tell(message: dict) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


main()

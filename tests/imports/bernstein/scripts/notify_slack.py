#!/usr/bin/env python3
"""scripts/notify_slack.py - Send Slack notifications on task failure."""
import json
import sys
import urllib.request

SLACK_WEBHOOK = "https://hooks.slack.com/services/T.../B.../..."

def main() -> None:
    event = json.load(sys.stdin)
    data = event["data"]
    message = {
        "text": f":x: Task `{data['task_id']}` failed: {data.get('error', 'unknown')}",
        "blocks": [
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": (
                        f"*Task Failed*\n"
                        f"Task: `{data['task_id']}`\n"
                        f"Agent: `{data.get('agent_id', 'N/A')}`\n"
                        f"Error: {data.get('error', 'unknown')}"
                    ),
                },
            }
        ],
    }
    req = urllib.request.Request(
        SLACK_WEBHOOK,
        data=json.dumps(message).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(req)

if __name__ == "__main__":
    main()

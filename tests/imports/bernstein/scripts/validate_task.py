#!/usr/bin/env python3
"""scripts/validate_task.py - Blocking hook to validate new tasks."""
import json
import sys

def main() -> int:
    event = json.load(sys.stdin)
    data = event["data"]
    # Require a scope for all tasks
    if not data.get("scope"):
        print("ERROR: Tasks must have a scope defined", file=sys.stderr)
        return 1
    # Require goal to be at least 10 characters
    goal = data.get("goal", "")
    if len(goal) < 10:
        print("ERROR: Task goal too short", file=sys.stderr)
        return 1
    return 0

if __name__ == "__main__":
    sys.exit(main())

# tests/test_my_hook.py
import json
import subprocess

def test_validate_task_blocks_missing_scope() -> None:
    payload = json.dumps({
        "event": "task.created",
        "timestamp": 1712345678.0,
        "data": {"task_id": "t1", "goal": "Short"}
    })
    result = subprocess.run(
        ["python", "scripts/validate_task.py"],
        input=payload, capture_output=True, text=True
    )
    assert result.returncode == 1 # blocked

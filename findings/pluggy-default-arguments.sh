#!/usr/bin/env bash
# pluggy up to 1.6.0: an argument that has a default value in the hook's specification never reaches a plugin.
#
# The specification says `stop(reason, signal="SIGTERM")`, as some of Bernstein's 38 hooks do (`signal` of on_stop, `batch_id` of
# on_tool_error). The host calls the hook with signal="SIGINT". A plugin that repeats the default is called without the argument, and so
# sees "SIGTERM" whatever the host has said. A plugin that asks for the argument without a default is refused when it is registered.
# pluggy 1.7.0 hands the argument over in both cases. An orchestrator that allows either version thus tells a plugin other things,
# with no error and no warning.
#
# Seen with Python 3.11 from PyPI:
#   1.6.0 with a default: SIGTERM
#   1.6.0 without: PluginValidationError
#   1.7.0 with a default: SIGINT
#   1.7.0 without: SIGINT
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/try.py" <<'PYTHON'
import pluggy

specified, implemented = pluggy.HookspecMarker("host"), pluggy.HookimplMarker("host")


class Specification:
    @specified
    def stop(self, reason, signal="SIGTERM"): ...


class WithDefault:
    @implemented
    def stop(self, reason, signal="SIGTERM"):
        return signal


class Without:
    @implemented
    def stop(self, reason, signal):
        return signal


for name, plugin in [("with a default", WithDefault()), ("without", Without())]:
    manager = pluggy.PluginManager("host")
    manager.add_hookspecs(Specification)
    try:
        manager.register(plugin)
        seen = manager.hook.stop(reason="asked to", signal="SIGINT")[0]
    except pluggy.PluginValidationError as error:
        seen = type(error).__name__
    print(f"{pluggy.__version__} {name}: {seen}")
PYTHON
said=$(for version in 1.6.0 1.7.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "pluggy==$version"
  "$folder/$version/bin/python" "$folder/try.py"
done)
printf '%s\n' "$said"
expected='1.6.0 with a default: SIGTERM
1.6.0 without: PluginValidationError
1.7.0 with a default: SIGINT
1.7.0 without: SIGINT'
[ "$said" = "$expected" ] || { echo "pluggy behaves in another way than is written here" >&2; exit 1; }

use serde_json::json;

use super::*;

/// A file as it was read: its settings as JSON, or its faults, one on each line.
fn check(file: &str, expected: &str) {
    let found = match HookSettings::of_file(file.as_bytes()) {
        Ok(read) => read.settings.to_value().to_string(),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    };
    assert_eq!(found, expected, "{file}");
}

/// One hook of `stop`, and the faults that its file has, without their places.
fn check_hook(hook: &Value, expected: &[&str]) {
    let file = json!({ "schema_version": 1, "hooks": { "stop": [hook] } }).to_string();
    let faults = HookSettings::of_file(file.as_bytes()).err().unwrap_or_default();
    let found: Vec<String> = faults.iter().map(|fault| format!("({}): {}", fault.way, fault.message)).collect();
    assert_eq!(found, expected, "{hook}");
}

fn hook(executor: &Value) -> Value {
    json!({ "name": "h", "executor": executor })
}

#[test]
fn both_forms_of_the_file_are_read() {
    let hooks = r#"{"hooks":{"stop":[{"executor":{"command":"true","type":"command"},"name":"h"}]}}"#;
    check(hooks, hooks);
    check(&hooks.replacen('{', r#"{"schema_version":1,"#, 1), hooks);
    check(&hooks.replacen('{', r#"{"schema_version":1,"later":[{"a":{}}],"#, 1), hooks);
    check("{}", "{}");
    check(r#"{"schema_version":1}"#, "{}");
    check(r#"{"schema_version":1,"hooks":{}}"#, "{}");
    check(r#"{"hooks":{"stop":[]}}"#, r#"{"hooks":{"stop":[]}}"#);
    // The name of an event at the top is a field that is passed over.
    let read = HookSettings::of_file(br#"{"stop":[{"name":"h"}],"hooks":{}}"#).unwrap();
    assert_eq!((read.settings.count(), read.unknown.len()), (0, 1));
    assert_eq!(read.unknown[0].to_string(), "stop");
}

/// K29, and every field once.
#[test]
fn settings_come_back_as_they_were() {
    let settings = json!({
        "schema_version": 1,
        "hooks": {
            "pre_tool_use": [
                { "name": "a", "matcher": "bash*", "failure_policy": { "mode": "closed", "max_retries": 3 },
                  "executor": { "type": "command", "command": "./x", "shell": "/bin/sh", "timeout_ms": 1 } },
                { "name": "a", "matcher": "", "executor": { "type": "http", "url": "https://a.example/x", "timeout_ms": 30_000 } },
            ],
            "notification": [{ "name": "c", "executor": { "type": "callback", "name": "m", "timeout_ms": 2 } }],
            "permission_request": [{ "name": "p", "executor": {
                "type": "prompt", "template": "{{event}}", "system_prompt": "s", "timeout_ms": 9,
                "model": { "provider": "openai", "generation": {
                    "model": "m", "fallback_model": "n", "tool_choice": { "type": "specific", "name": "t" },
                    "allow_parallel_tool_calls": false, "max_output_tokens": 5, "temperature": 0.5,
                    "reasoning": { "effort": "xhigh", "summary": "concise", "budget_tokens": 7, "interleaved": true },
                    "response_format": { "type": "structured_json", "schema": {
                        "kind": "object", "fields": { "a": { "kind": "array", "fields": {}, "optional_fields": {},
                            "items": { "kind": "any", "fields": {}, "optional_fields": {}, "items": null } } },
                        "optional_fields": {}, "items": null } } } } } }],
            "task_completed": [{ "name": "v", "failure_policy": { "mode": "open", "max_retries": 1 }, "executor": {
                "type": "agent", "template": "t", "system_prompt": "s", "model": {},
                "tool_surface": { "allowlist": ["read_file"], "denylist": ["bash"] }, "max_turns": 2, "timeout_ms": 3 } }],
        },
    });
    let read = HookSettings::of_file(settings.to_string().as_bytes()).unwrap();
    assert_eq!(read.settings.to_file(), settings);
    let again = HookSettings::of_file(read.settings.to_file().to_string().as_bytes()).unwrap();
    assert_eq!(again, read);
    assert_eq!(HookSettings::of_value(&read.settings.to_value()).unwrap().settings, read.settings);
    assert!(read.origins.iter().all(|origin| origin.unknown.is_empty()));
}

/// K19: what is not said has its default, and what is said as the default is not written.
#[test]
fn defaults() {
    let read = |executor: Value| {
        let definition = json!({ "name": "h", "matcher": null, "failure_policy": { "mode": "open", "max_retries": 0 }, "executor": executor });
        let settings = HookSettings::of_value(&json!({ "hooks": { "stop": [definition] } })).unwrap().settings;
        settings.hooks[0].1[0].clone()
    };
    for (executor, ms) in [
        (json!({ "type": "command", "command": "x" }), 5_000),
        (json!({ "type": "http", "url": "https://a.example" }), 5_000),
        (json!({ "type": "prompt", "template": "x" }), 15_000),
        (json!({ "type": "agent", "template": "x" }), 30_000),
        (json!({ "type": "callback", "name": "x" }), 15_000),
    ] {
        let hook = read(executor.clone());
        assert_eq!((hook.executor.timeout_ms(), hook.failure_policy), (ms, FailurePolicy::default()), "{executor}");
        assert_eq!(json!(hook), json!({ "name": "h", "executor": executor }));
    }
    let sparse = read(
        json!({ "type": "prompt", "template": "x", "model": { "generation": { "temperature": 0.2, "reasoning": {} } } }),
    );
    let Executor::Prompt { model: Some(Model { generation: Some(generation), .. }), .. } = sparse.executor else {
        panic!("{sparse:?}")
    };
    assert_eq!(Value::Object(generation.said()), json!({ "temperature": 0.2 }));
}

/// The digests were made with another program, from the rule.
#[test]
fn digests_of_definitions() {
    let read = |definition: Value| serde_json::from_value::<HookDefinition>(definition).unwrap();
    let plain = read(json!({ "executor": { "command": "true", "type": "command" }, "name": "h", "matcher": "x" }));
    assert_eq!(plain.digest(), "e8ef4030e141937c714e9167c75cbe69465d456e7c5bf06e26895f00d1488b1e");
    let agent = read(json!({ "name": "gué", "failure_policy": { "max_retries": 2, "mode": "closed" }, "executor": {
        "type": "agent", "template": "t", "max_turns": 2, "tool_surface": { "denylist": [], "allowlist": ["read_file"] },
        "model": { "provider": "anthropic", "generation": { "model": "m" } } } }));
    assert_eq!(agent.digest(), "b54cc3d2999c3fdd9279675ce09498a177ff5ca185213ae556ee9b303b692674");
}

#[test]
fn files_on_which_kheish_starts_without_hooks() {
    check("", "expected JSON: it is empty");
    check("{\"hooks\":\n {]}", "2:3: expected JSON: key must be a string");
    check("\u{feff}{}", "1:1: expected JSON: it begins with a byte order mark, which JSON does not have");
    check("[]", "1:1: hook settings must be a JSON object");
    check("null", "1:1: hook settings must be a JSON object");
    let unsigned = "1:20 (schema_version): hook settings schema_version must be an unsigned integer";
    for version in ["\"1\"", "1.0", "-1", "null", "{}", "true"] {
        check(&format!("{{\"schema_version\": {version}}}"), unsigned);
    }
    for version in ["0", "2", "999"] {
        let expected = format!("1:20 (schema_version): unsupported hook settings schema_version {version}; expected 1");
        check(&format!("{{\"schema_version\": {version}}}"), &expected);
    }
    let shape = "expected the hooks as an object, with an array of hooks for each event";
    check("{\"hooks\":\n  null}", &format!("2:3 (hooks): {shape}"));
    check("{\"hooks\": []}", &format!("1:11 (hooks): {shape}"));
    check("{\"hooks\": {\"stop\": {}}}", "1:20 (hooks.stop): expected the hooks of stop as an array");
    check(
        "{\"hooks\": {\"PreToolUse\": [], \"Stop\": [], \"other\": 1}}",
        "1:26 (hooks.PreToolUse): unknown event \"PreToolUse\", expected one of the 27: did you mean `pre_tool_use`?\n\
         1:38 (hooks.Stop): unknown event \"Stop\", expected one of the 27: did you mean `stop`?\n\
         1:51 (hooks.other): unknown event \"other\", expected one of the 27",
    );
}

/// Kheish drops the first of two in silence.
#[test]
fn keys_that_are_there_twice_are_refused() {
    let once = "expected each key once in an object";
    check("{\"hooks\": {},\n \"hooks\": {}}", &format!("2:11 (hooks): {once}"));
    check("{\"hooks\": {\"stop\": [], \"stop\": []}}", &format!("1:32 (hooks.stop): {once}"));
    let twice = r#"{"hooks": {"stop": [{"name": "a", "name": "b"}]}}"#;
    check(twice, &format!("1:43 (hooks.stop[0].name): {once}"));
}

#[test]
fn other_types_are_told_with_their_field() {
    let executor = json!({ "type": "command", "command": "true" });
    let at = "(hooks.stop[0]";
    let told = |place: &str, name: &str, message: &str| format!("{at}{place}): Stop[0]:{name}: {message}");
    let check = |hook: &Value, expected: String| check_hook(hook, &[&expected]);
    check(&json!("x"), told("", "", "expected a hook as an object, found a text"));
    check(&json!({ "executor": executor }), told("", "", "missing field `name`"));
    let wrong_name = json!({ "name": 7, "executor": executor });
    check(&wrong_name, told(".name", "", "`name`: invalid type: integer `7`, expected a string"));
    check(&json!({ "name": "h" }), told(".executor", "h", "missing field `executor`"));
    let matcher = json!({ "name": "h", "matcher": ["a"], "executor": executor });
    check(&matcher, told(".matcher", "h", "`matcher`: invalid type: sequence, expected a string"));
    for (policy, place, message) in [
        (json!(null), "", "invalid type: null, expected struct FailurePolicy"),
        (json!({ "mode": "shut" }), ".mode", "unknown variant `shut`, expected `open` or `closed`"),
        (json!({ "mode": null }), ".mode", "null"),
        (json!({ "max_retries": 256 }), ".max_retries", "invalid value: integer `256`, expected u8"),
        (json!({ "max_retries": -1 }), ".max_retries", "invalid value: integer `-1`, expected u8"),
        (json!({ "max_retries": "1" }), ".max_retries", "invalid type: string \"1\", expected u8"),
    ] {
        let file = json!({ "hooks": { "stop": [{ "name": "h", "failure_policy": policy, "executor": executor }] } });
        let faults = HookSettings::of_value(&file).unwrap_err();
        assert_eq!(faults[0].way.to_string(), format!("hooks.stop[0].failure_policy{place}"), "{faults:?}");
        assert!(faults[0].message.contains(message), "{faults:?}");
    }
    for (executor, place, message) in [
        (json!([]), "", "expected an executor as an object, found an array"),
        (json!({}), "", "missing field `type`"),
        (json!({ "type": "shell" }), ".type", "unknown variant `shell`, expected one of `command`"),
        (json!({ "type": 1 }), ".type", "expected"),
        (json!({ "type": "command" }), "", "missing field `command`"),
        (
            json!({ "type": "command", "command": "x", "timeout_ms": "5s" }),
            ".timeout_ms",
            "`timeout_ms`: invalid type: string \"5s\", expected u64",
        ),
        (json!({ "type": "command", "command": "x", "timeout_ms": 1.5 }), ".timeout_ms", "expected u64"),
        (json!({ "type": "http", "url": null }), ".url", "`url`: invalid type: null"),
        (json!({ "type": "agent", "template": "x", "max_turns": -1 }), ".max_turns", "expected usize"),
        (
            json!({ "type": "agent", "template": "x", "tool_surface": { "allowlist": "a" } }),
            ".tool_surface.allowlist",
            "expected a sequence",
        ),
        (
            json!({ "type": "prompt", "template": "x", "model": { "generation": { "temperature": "hot" } } }),
            ".model.generation.temperature",
            "expected f32",
        ),
    ] {
        let faults = HookSettings::of_value(&json!({ "hooks": { "stop": [hook(&executor)] } })).unwrap_err();
        assert_eq!(faults[0].way.to_string(), format!("hooks.stop[0].executor{place}"), "{faults:?}");
        assert!(faults[0].message.starts_with("Stop[0]:h: ") && faults[0].message.contains(message), "{faults:?}");
    }
}

#[test]
fn every_rule_is_told_in_their_words() {
    let command = |command: &str| json!({ "type": "command", "command": command });
    let check = |hook: &Value, way: &str, message: &str| {
        let name = hook["name"].as_str().unwrap();
        check_hook(hook, &[&format!("(hooks.stop[0].{way}): Stop[0]:{name}: {message}")]);
    };
    check(&json!({ "name": " \t", "executor": command("x") }), "name", "hook name must not be empty");
    let retries = json!({ "name": "h", "failure_policy": { "max_retries": 4 }, "executor": command("x") });
    check(&retries, "failure_policy.max_retries", "hook max_retries must not exceed 3");
    for (executor, way, message) in [
        (
            json!({ "type": "command", "command": "x", "timeout_ms": 0 }),
            "timeout_ms",
            "hook timeout_ms must be greater than zero",
        ),
        (
            json!({ "type": "http", "url": "https://a.example", "timeout_ms": 30_001 }),
            "timeout_ms",
            "hook timeout_ms must not exceed 30000",
        ),
        (command(" \n"), "command", "command hook command is empty"),
        (json!({ "type": "command", "command": "x", "shell": "" }), "shell", "command hook shell is empty"),
        (json!({ "type": "http", "url": "http://localhost:9" }), "url", "HTTP hook URL must not target localhost"),
        (json!({ "type": "prompt", "template": "" }), "template", "prompt hook template is empty"),
        (json!({ "type": "agent", "template": " " }), "template", "agent hook template is empty"),
        (
            json!({ "type": "agent", "template": "x", "tool_surface": {} }),
            "tool_surface",
            "agent hook tool_surface must include an allowlist",
        ),
        (
            json!({ "type": "agent", "template": "x", "tool_surface": { "allowlist": [" "], "denylist": ["bash"] } }),
            "tool_surface",
            "agent hook tool_surface must include an allowlist",
        ),
        (json!({ "type": "agent", "template": "x", "max_turns": 0 }), "max_turns", "agent hook max_turns is zero"),
        (json!({ "type": "callback", "name": " " }), "name", "callback hook name is empty"),
    ] {
        check(&hook(&executor), &format!("executor.{way}"), message);
    }
    for executor in [
        json!({ "type": "command", "command": "x", "timeout_ms": 30_000 }),
        json!({ "type": "agent", "template": "x", "tool_surface": { "allowlist": [DENY_ALL] } }),
        json!({ "type": "agent", "template": "x", "tool_surface": null, "max_turns": null }),
    ] {
        check_hook(&hook(&executor), &[]);
    }
}

/// Kheish answers with the first; here all are told, types before rules, in the order of its events.
#[test]
fn all_mistakes_are_told_in_their_order() {
    let file = "{\"hooks\": {\n\
        \"stop\": [{\"name\": \"\", \"executor\": {\"type\": \"command\", \"command\": \"\", \"timeout_ms\": 0}}],\n\
        \"setup\": [\n  {\"name\": \"a\\u001b\", \"executor\": {\"type\": \"x\"}},\n  {\"name\": \"b\", \"executor\": {\"type\": \"callback\", \"name\": \"\"}}]}}";
    check(
        file,
        "4:44 (hooks.setup[0].executor.type): Setup[0]:a\\u{1b}: unknown variant `x`, expected one of `command`, `http`, `prompt`, `agent`, `callback`\n\
         5:58 (hooks.setup[1].executor.name): Setup[1]:b: callback hook name is empty\n\
         2:19 (hooks.stop[0].name): Stop[0]:: hook name must not be empty\n\
         2:84 (hooks.stop[0].executor.timeout_ms): Stop[0]:: hook timeout_ms must be greater than zero\n\
         2:66 (hooks.stop[0].executor.command): Stop[0]:: command hook command is empty",
    );
    let partly = HookSettings::of_file_partly(file.as_bytes()).unwrap();
    assert_eq!((partly.settings.count(), partly.faults.len()), (0, 5));
}

#[test]
fn fields_that_are_passed_over_are_known() {
    let file = json!({ "hooks": { "setup": [], "stop": [
        { "name": "a", "enabled": false, "executor": { "type": "http", "url": "https://a.example", "headers": {}, "template": 1 } },
        { "name": "b", "failure_policy": { "retries": 2 }, "executor": { "type": "prompt", "template": "x",
          "model": { "generation": { "top_p": 1 }, "url": "x" } } },
    ] } });
    let read = HookSettings::of_file(file.to_string().as_bytes()).unwrap();
    let unknown = |origin: &Origin| origin.unknown.iter().map(ToString::to_string).collect::<Vec<_>>();
    let at = "hooks.stop[0]";
    assert_eq!(
        unknown(&read.origins[0]),
        [format!("{at}.enabled"), format!("{at}.executor.headers"), format!("{at}.executor.template")]
    );
    let at = "hooks.stop[1]";
    let model = format!("{at}.executor.model");
    assert_eq!(
        unknown(&read.origins[1]),
        [format!("{at}.failure_policy.retries"), format!("{model}.generation.top_p"), format!("{model}.url")]
    );
}

#[test]
fn readers_see_what_is_no_secret() {
    let hooks = |command: &str, url: &str, prompt: serde_json::Value, agent: serde_json::Value| {
        json!({ "hooks": { "stop": [
            { "name": "a", "matcher": "x*", "executor": { "type": "command", "command": command, "timeout_ms": 7 } },
            { "name": "b", "executor": { "type": "http", "url": url } },
            { "name": "c", "failure_policy": { "mode": "closed" }, "executor": prompt },
            { "name": "d", "executor": agent },
            { "name": "e", "executor": { "type": "callback", "name": "cb" } },
        ] } })
    };
    let whole = hooks(
        "curl -H 'token: t'",
        "https://example.com:8443/secret?x=y",
        json!({ "type": "prompt", "template": "t", "system_prompt": "s" }),
        json!({ "type": "agent", "template": "t", "system_prompt": "s", "max_turns": 2 }),
    );
    let shown = hooks(
        "[redacted hook command]",
        "https://example.com:8443",
        json!({ "type": "prompt", "template": "[redacted hook prompt template]" }),
        json!({ "type": "agent", "template": "[redacted hook agent template]", "max_turns": 2 }),
    );
    assert_eq!(HookSettings::of_value(&whole).unwrap().settings.redacted(), shown);
    assert_eq!(HookSettings::default().redacted(), json!({}));
}

/// To find the place of each of very many mistakes would take hours.
#[test]
fn the_first_of_many_mistakes_have_places() {
    let file = format!(r#"{{ "hooks": {{ "stop": [{}] }} }}"#, vec!["{}"; 150].join(","));
    let faults = HookSettings::of_file(file.as_bytes()).unwrap_err();
    assert_eq!((faults.len(), faults.iter().filter(|fault| fault.spot.is_some()).count()), (150, 100));
    assert_eq!(faults[149].way.to_string(), "hooks.stop[149]");
    let repeated = format!("{{{}}}", vec![r#""a":1"#; 150].join(","));
    assert_eq!(HookSettings::of_file(repeated.as_bytes()).unwrap_err().len(), 100);
}

use proptest::prelude::*;

use super::*;
use crate::domain::aggregation::StopAt;
use crate::domain::dialect::Dialect;
use crate::domain::id::HookId;

fn read(text: &str) -> String {
    match Answer::read(text) {
        Ok(answer) => format!("{:?}", answer.verdict()),
        Err(error) => error,
    }
}

#[test]
fn answers() {
    for (text, expected) in [
        ("", "Allow"),
        (" \n\t", "Allow"),
        ("{}", "Allow"),
        (r#"{"decision":"approve"}"#, "Allow"),
        (r#"{"decision":"block"}"#, "Deny"),
        (r#"{"continue_execution":false}"#, "Deny"),
        (r#"{"permission":"ask"}"#, "Ask"),
        (r#"{"permission":"deny","decision":"approve"}"#, "Deny"),
        (r#"{"permission":"allow","decision":"block"}"#, "Deny"),
        (r#"{"unknown":[1],"decision":null}"#, "Allow"),
        // Of a text, the first whole object.
        ("```json\n{\"decision\":\"block\",\"continue_execution\":false}\n```", "Deny"),
        ("I think {so}: {\"permission\":\"ask\", \"stop_reason\": \"}\"} and {\"decision\":\"block\"}", "Ask"),
        ("no", "expected a JSON object, or nothing, as the answer; found other text"),
        ("{ {{ {", "expected a JSON object, or nothing, as the answer; found other text"),
        ("[]", "expected a JSON object as the answer, found other JSON"),
        ("true", "expected a JSON object as the answer, found other JSON"),
        // Versions.
        (r#"{"contract_version":1}"#, "Allow"),
        (r#"{"contract_version":0}"#, "Allow"),
        (r#"{"contract_version":null}"#, "Allow"),
        (r#"{"contract_version":999,"decision":7}"#, "unsupported hook outcome contract_version 999"),
        (r#"{"contract_version":"999"}"#, "malformed hook outcome contract_version"),
        (r#"{"contract_version":-1}"#, "malformed hook outcome contract_version"),
        (r#"{"contract_version":1.5}"#, "malformed hook outcome contract_version"),
        (r#"{"contract_version":{}}"#, "malformed hook outcome contract_version"),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    for wrong in [
        r#"{"decision":"deny"}"#,
        r#"{"decision":true}"#,
        r#"{"permission":"approve"}"#,
        r#"{"continue_execution":"false"}"#,
        r#"{"stop_reason":1}"#,
        r#"{"additional_contexts":"one"}"#,
        r#"{"watch_paths":[1]}"#,
        r#"{"retry":1}"#,
        r#"{"updated_permissions":[{"scope":"all","tool_name_pattern":"x","behavior":"allow"}]}"#,
        r#"{"decision":"approve","decision":"block"}"#,
    ] {
        assert!(read(wrong).starts_with("expected an answer such as"), "{wrong}: {}", read(wrong));
    }
}

/// Merges what hooks `h0`, `h1`, … say.
fn merged(answers: &[&str]) -> Merge {
    let mut merge = Merge::new(Dialect::Native);
    for (number, text) in answers.iter().enumerate() {
        merge.add(&hook(number), Answer::read(text).unwrap(), 1, 7);
    }
    merge
}

fn hook(number: usize) -> HookId {
    HookId::new(&format!("h{number}")).unwrap()
}

#[test]
fn nobody_asked() {
    let decision = Merge::new(Dialect::Native).done();
    assert_eq!(decision, Decision::default());
    let json = r#"{"verdict":"allow","stop":false,"updated_permissions":[],"additional_contexts":[],"watch_paths":[],"retry":false,"matched_hooks":[],"hooks":[]}"#;
    assert_eq!(serde_json::to_string(&decision).unwrap(), json);
    assert_eq!(serde_json::from_str::<Decision>(json).unwrap(), decision);
}

#[test]
fn what_the_last_and_what_the_first_says() {
    let merge = merged(&[
        r#"{"updated_input":{"a":1.0e0},"stop_reason":"one","additional_contexts":["b","a"],"watch_paths":["/z","/a"]}"#,
        r#"{"updated_input":{"a":18446744073709551617},"updated_output":[],"initial_user_message":"hi","retry":true}"#,
        r#"{"stop_reason":"two","additional_contexts":["a"],"initial_user_message":"ho","watch_paths":["/a"]}"#,
        r#"{"permission":"allow","updated_permissions":[{"scope":"session","tool_name_pattern":"ls*","behavior":"allow"}]}"#,
        r#"{"permission":"ask"}"#,
    ]);
    assert!(!merge.ends_at(StopAt::Denial));
    assert_eq!(merge.input().unwrap().as_str(), r#"{"a":18446744073709551617}"#);
    let decision = merge.done();
    assert_eq!((decision.verdict, decision.reason.as_deref(), decision.stop), (Verdict::Ask, Some("one"), false));
    assert_eq!(decision.updated_output.as_ref().map(Json::as_str), Some("[]"));
    assert_eq!(decision.additional_contexts, ["b", "a", "a"]);
    assert_eq!(decision.initial_user_message.as_deref(), Some("hi"));
    assert_eq!(decision.watch_paths.iter().collect::<Vec<_>>(), ["/a", "/z"]);
    assert_eq!(decision.matched_hooks, ["h0", "h1", "h2", "h3", "h4"]);
    assert!(decision.retry && decision.updated_permissions.len() == 1);
    let json = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&json).unwrap(), decision);
}

#[test]
fn hooks_that_fail() {
    let mut merge = merged(&[r#"{"additional_contexts":["kept"]}"#]);
    merge.fail(&hook(1), "timed out after 1s", 2, 1_000, false);
    assert!(!merge.ends_at(StopAt::Denial), "open");
    merge.fail(&hook(2), "500 Internal Server Error", 3, 20, true);
    assert!(merge.ends_at(StopAt::Denial), "closed");
    let decision = merge.done();
    let reason = "hook `h2` failed after 3 attempt(s): 500 Internal Server Error";
    assert_eq!((decision.reason.as_deref(), decision.stop), (Some(reason), true));
    assert_eq!(decision.matched_hooks, ["h0"], "those that answered");
    let asked: Vec<_> =
        decision.hooks.iter().map(|asked| (asked.hook.as_str(), asked.verdict, asked.attempts)).collect();
    assert_eq!(asked, [("h0", Some(Verdict::Allow), 1), ("h1", None, 2), ("h2", None, 3)]);

    let mut merge = Merge::new(Dialect::Kheish);
    merge.fail(&hook(1), "timed out after 1s", 2, 1_000, false);
    merge.fail(&hook(2), "500 Internal Server Error", 3, 20, true);
    assert_eq!(merge.done().matched_hooks, ["h2"], "a refusal in place of a failure is an outcome there");
}

#[test]
fn there_is_an_end_to_texts_and_lists() {
    let long = format!(r#"{{"stop_reason":"{}","initial_user_message":"{}"}}"#, "ä".repeat(3_000), "ö".repeat(20_000));
    let many = format!(
        r#"{{"additional_contexts":{:?},"watch_paths":{:?}}}"#,
        vec!["c"; 150],
        (0..150).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let decision = merged(&[&long, &many, &many]).done();
    assert_eq!(decision.reason.unwrap().chars().count(), 2_048);
    assert_eq!(decision.initial_user_message.unwrap().chars().count(), 10_000);
    assert_eq!((decision.additional_contexts.len(), decision.watch_paths.len()), (100, 100));
    let deep = format!("{}{}", "{".repeat(200_000), "}".repeat(200_000));
    assert!(Answer::read(&deep).is_err());
}

prop_compose! {
    fn answer()(
        goes_on in prop::bool::weighted(0.8),
        block in prop::option::of(any::<bool>()),
        permission in prop::option::of(0..3_u8),
        context in prop::option::of("[a-z]{1,3}"),
        input in prop::option::of(0..9_u8),
    ) -> Answer {
        let rules = |number| [Verdict::Allow, Verdict::Ask, Verdict::Deny][usize::from(number)];
        Answer {
            continue_execution: goes_on,
            decision: block.map(|block| if block { Approval::Block } else { Approval::Approve }),
            permission: permission.map(rules),
            additional_contexts: context.into_iter().collect(),
            updated_input: input.map(|input: u8| Json(RawValue::from_string(input.to_string()).unwrap())),
            ..Answer::default()
        }
    }
}

#[test]
fn another_dialect_has_both_words() {
    let check = |answers: &[&str], decision, permission, is_blocked| {
        let mut merge = Merge::new(Dialect::Kheish);
        for (number, text) in answers.iter().enumerate() {
            let id = hook(number);
            merge.add(Named { id: &id, called: "second opinion" }, Answer::read(text).unwrap(), 1, 7);
        }
        assert_eq!(merge.ends_at(StopAt::Block), is_blocked, "{answers:?}");
        let merged = merge.done();
        assert_eq!(merged.spoken, Some(Spoken { dialect: Dialect::Kheish, decision, permission }), "{answers:?}");
        assert!(merged.matched_hooks.iter().all(|name| name == "second opinion"));
    };
    let [approve, block] = [Approval::Approve, Approval::Block].map(Some);
    check(&["{}"], None, None, false);
    check(&[r#"{"decision":"block"}"#, r#"{"decision":"approve"}"#], block, None, true);
    check(&[r#"{"decision":"approve"}"#, ""], approve, None, false);
    check(&[r#"{"permission":"allow"}"#, r#"{"permission":"deny"}"#], None, Some(Verdict::Deny), false);
    check(&[r#"{"permission":"allow"}"#, r#"{"permission":"ask"}"#], None, Some(Verdict::Ask), false);
    check(&[r#"{"continue_execution":false}"#], None, None, true);
    let mut merge = Merge::new(Dialect::Kheish);
    merge.fail(Named { id: &hook(1), called: "second opinion" }, "503", 2, 1, true);
    let merged = merge.done();
    assert_eq!(merged.reason.as_deref(), Some("hook `second opinion` failed after 2 attempt(s): 503"));
    assert_eq!(merged.matched_hooks, ["second opinion"]);
}

proptest! {
    /// A refusal is never lost, nobody is asked behind it, and the order is kept.
    #[test]
    fn refusals_and_order(answers in prop::collection::vec(answer(), 0..8)) {
        let mut merge = Merge::new(Dialect::Native);
        let mut asked = Vec::new();
        for (number, answer) in answers.iter().enumerate() {
            if merge.ends_at(StopAt::Denial) {
                break;
            }
            merge.add(&hook(number), answer.clone(), 1, 0);
            asked.push(answer);
        }
        let decision = merge.done();
        let refuses = |answer: &&Answer| answer.verdict() == Verdict::Deny;
        prop_assert_eq!(decision.verdict == Verdict::Deny, answers.iter().any(|answer| refuses(&answer)));
        prop_assert_eq!(decision.verdict, asked.iter().map(|answer| answer.verdict()).max().unwrap_or_default());
        let first = answers.iter().position(|answer| refuses(&answer));
        prop_assert_eq!(decision.hooks.len(), first.map_or(answers.len(), |first| first + 1));
        let contexts: Vec<String> = asked.iter().flat_map(|answer| answer.additional_contexts.clone()).collect();
        prop_assert_eq!(decision.additional_contexts, contexts);
        let last = asked.iter().rev().find_map(|answer| answer.updated_input.clone());
        prop_assert_eq!(decision.updated_input, last);
        prop_assert_eq!(decision.stop, asked.iter().any(|answer| !answer.continue_execution));
    }

    #[test]
    fn any_text_is_an_answer_or_an_error(text in ".{0,80}") {
        drop(Answer::read(&text));
        drop(Answer::read(&format!("{{\"decision\":{text}}}")));
    }
}

#[test]
fn what_travels_with_the_event() {
    let merge = merged(&[r#"{"updated_input":{"a":1},"stop_reason":"no","decision":"block"}"#]);
    let small = merge.done().to_json();
    assert_eq!(Decided::of_kept(&small).as_json(), small);
    let large = format!(r#"{{"updated_input":"{}","stop_reason":"no","decision":"block"}}"#, "x".repeat(30_000));
    let kept = merged(&[&large]).done().to_json();
    let decided = Decided::of_kept(&kept);
    let read: Decision = serde_json::from_str(decided.as_json()).unwrap();
    assert_eq!((read.verdict, read.reason.as_deref(), read.matched_hooks.len()), (Verdict::Deny, Some("no"), 1));
    assert_eq!(read.updated_input, None);
    let many = Decision { hooks: vec![read.hooks[0].clone(); 2_000], ..read };
    let read: Decision = serde_json::from_str(Decided::of_kept(&many.to_json()).as_json()).unwrap();
    assert_eq!((read.verdict, read.hooks.len()), (Verdict::Deny, 0));
    assert_eq!(Decided::from_json("{"), Decided::nobody());
}

#[test]
fn reasons_show_no_secrets() {
    let secrets = Secrets::new(["tops3cret".to_owned(), "first-line\nend".to_owned()]);
    let answer = Answer::refusal("api_key=sk-1234567890\nsee tops3cret\nfirst-line\nend").redacted(&secrets);
    let mut merge = Merge::new(Dialect::Native);
    merge.add(&hook(1), answer, 1, 1);
    let reason = merge.done().reason.unwrap();
    assert!(!reason.contains("sk-1234567890") && !reason.contains("tops3cret") && reason.contains('\n'), "{reason}");
    assert!(!reason.contains("end"), "{reason}");

    let rule = r#"{"scope": "session", "tool_name_pattern": "x", "behavior": "allow", "reason": "as tops3cret says"}"#;
    let answer = Answer::read(&format!("{{\"updated_permissions\": [{rule}]}}")).unwrap();
    assert!(answer.has_reason());
    let mut merge = Merge::new(Dialect::Native);
    merge.add(&hook(1), answer.redacted(&secrets), 1, 1);
    assert_eq!(merge.done().updated_permissions[0].reason.as_deref(), Some("as [REDACTED] says"));
}

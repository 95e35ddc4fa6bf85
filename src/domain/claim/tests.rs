use super::*;
use crate::domain::failure::Class;

const T1: Token = Token { run: 1, body: 0 };
const T2: Token = Token { run: 2, body: 0 };

fn at(generation: u32, attempt: u32) -> Point {
    Point { generation, attempt }
}

fn retry() -> Next {
    Next::Retry { delay_ms: 1000, spent_ms: 5, report: None }
}

fn bury() -> Next {
    Next::Bury { class: Class::Exhausted, report: None }
}

fn held_by(token: Token, at: Point, deaths: u32) -> Claim {
    Claim::Held { at, token, deaths, floor_ms: 100 }
}

fn ask(at: Point) -> ClaimRequest {
    ClaimRequest {
        at,
        token: T2,
        deaths: 0,
        forced: 0,
        in_suspect: false,
        limits: DeathLimits::default(),
        lease_ms: 30,
        floor_ms: 100,
    }
}

fn check(found: Option<Claim>, lease_left_ms: u64, request: &ClaimRequest, expected: &str) {
    let found = found.map(|claim| Found { claim, lease_left_ms });
    let step = step(found.as_ref(), &Request::Claim(request.clone()));
    let answer = match step.answer {
        Answer::Won { deaths, taken_over } => format!("won {deaths}{}", if taken_over { " takeover" } else { "" }),
        Answer::Done { .. } => "done".into(),
        Answer::Superseded => "superseded".into(),
        Answer::Busy { lease_left_ms } => format!("busy {lease_left_ms}"),
        Answer::Resume { next, .. } => format!("resume {}", if next.is_bury() { "bury" } else { "retry" }),
        Answer::Suspect { deaths } => format!("suspect {deaths}"),
        Answer::Decided { decision, .. } => format!("decided {decision}"),
        Answer::Ok | Answer::NotYours | Answer::Cancelled { .. } => "illegal".into(),
    };
    assert_eq!(answer, expected, "{found:?} asked {:?}", request.at);
}

#[test]
fn the_table_of_claims() {
    check(None, 0, &ask(at(0, 1)), "won 0");
    let done = || Some(Claim::Done { generation: 0, token: T1 });
    check(done(), 0, &ask(at(1, 1)), "done");
    check(done(), 0, &ClaimRequest { forced: 1, ..ask(at(1, 1)) }, "won 0");
    let finished = || Some(Claim::Done { generation: 1, token: T1 });
    check(finished(), 0, &ClaimRequest { forced: 1, ..ask(at(2, 1)) }, "done"); // what was forced is done
    let buried = || Some(Claim::Buried { generation: 0, cancelled: false });
    check(buried(), 0, &ask(at(0, 9)), "superseded");
    check(buried(), 0, &ask(at(1, 1)), "won 0");
    check(Some(held_by(T2, at(0, 1), 1)), 5, &ask(at(0, 1)), "won 1");
    check(Some(held_by(T1, at(0, 2), 0)), 0, &ask(at(0, 1)), "superseded");
    check(Some(held_by(T1, at(0, 1), 0)), 5, &ask(at(0, 1)), "busy 5");
    check(Some(held_by(T1, at(0, 1), 0)), 0, &ask(at(0, 1)), "won 1 takeover");
    let settled = |next| Some(Claim::Settled { at: at(1, 2), token: T1, deaths: 0, next });
    check(settled(retry()), 0, &ask(at(0, 5)), "superseded");
    check(settled(retry()), 0, &ask(at(1, 2)), "resume retry");
    check(settled(retry()), 0, &ask(at(1, 1)), "resume retry");
    check(settled(retry()), 0, &ask(at(1, 3)), "won 0");
    check(settled(bury()), 0, &ask(at(1, 3)), "resume bury");
    check(settled(bury()), 0, &ask(at(2, 1)), "won 0");
    let out = || Some(Claim::Out { at: at(0, 2), deaths: 0 });
    check(out(), 0, &ask(at(0, 1)), "superseded");
    check(out(), 0, &ask(at(0, 2)), "won 0");
}

#[test]
fn deaths_lead_to_suspect_and_then_to_the_letters() {
    check(Some(held_by(T1, at(0, 1), 1)), 0, &ask(at(0, 1)), "suspect 2");
    let in_suspect = |deaths| ClaimRequest { in_suspect: true, deaths, ..ask(at(0, 1)) };
    check(Some(held_by(T1, at(0, 1), 1)), 0, &in_suspect(0), "won 2 takeover");
    check(Some(held_by(T1, at(0, 1), 4)), 0, &in_suspect(0), "resume bury");
    check(None, 0, &ClaimRequest { deaths: 2, ..ask(at(0, 1)) }, "suspect 2");
    check(None, 0, &in_suspect(5), "resume bury");
    check(Some(held_by(T1, at(0, 1), 4)), 0, &ask(at(1, 1)), "won 0 takeover"); // a new generation starts at 0
}

fn check_request(found: Option<Claim>, request: &Request, expected: Option<Claim>, answer: Answer) {
    let found = found.map(|claim| Found { claim, lease_left_ms: 1 });
    let step = step(found.as_ref(), request);
    assert_eq!((step.write.map(|write| write.claim), step.answer), (expected, answer), "{found:?} {request:?}");
}

#[test]
fn only_the_own_token_writes() {
    let done = Claim::Done { generation: 0, token: T2 };
    let settle = |token| Request::Settle { at: at(0, 1), token, deaths: 0, settlement: Settlement::Done, keep_ms: 9 };
    check_request(Some(held_by(T2, at(0, 1), 0)), &settle(T2), Some(done.clone()), Answer::Ok);
    check_request(None, &settle(T2), Some(done.clone()), Answer::Ok);
    check_request(Some(done.clone()), &settle(T2), None, Answer::Ok);
    check_request(Some(held_by(T1, at(0, 1), 0)), &settle(T2), None, Answer::NotYours);
    check_request(Some(done), &settle(T1), None, Answer::NotYours);

    let settled = Claim::Settled { at: at(0, 1), token: T1, deaths: 1, next: retry() };
    let advance = |token, at| Request::Advance { at, token, keep_ms: 9 };
    let out = Claim::Out { at: at(0, 2), deaths: 1 };
    check_request(Some(settled.clone()), &advance(T1, at(0, 1)), Some(out.clone()), Answer::Ok);
    check_request(Some(settled.clone()), &advance(T2, at(0, 1)), None, Answer::NotYours);
    check_request(Some(out), &advance(T1, at(0, 1)), None, Answer::NotYours);

    let release = Request::Release { token: T1, keep_ms: 9 };
    check_request(Some(held_by(T1, at(1, 3), 2)), &release, Some(Claim::Out { at: at(1, 3), deaths: 2 }), Answer::Ok);
    check_request(Some(held_by(T2, at(1, 3), 2)), &release, None, Answer::NotYours);

    let cancel = Request::Cancel { generation: 0, keep_ms: 9 };
    let buried = |generation, cancelled| Claim::Buried { generation, cancelled };
    let answer = |before| Answer::Cancelled { before };
    check_request(None, &cancel, Some(buried(0, true)), answer(Before::Nothing));
    check_request(Some(settled), &cancel, Some(buried(0, true)), answer(Before::Pending));
    check_request(
        Some(Claim::Out { at: at(0, 2), deaths: 0 }),
        &cancel,
        Some(buried(0, true)),
        answer(Before::Pending),
    );
    check_request(Some(held_by(T1, at(1, 1), 0)), &cancel, Some(buried(1, true)), answer(Before::Held));
    check_request(Some(buried(2, false)), &cancel, None, answer(Before::Buried));
    check_request(Some(buried(0, true)), &cancel, Some(buried(0, true)), answer(Before::Cancelled));
    check_request(Some(Claim::Done { generation: 0, token: T1 }), &cancel, None, Answer::Done { token: T1 });
}

#[test]
fn a_renewal_keeps_the_stored_floor() {
    let found = Found { claim: held_by(T1, at(0, 1), 0), lease_left_ms: 1 };
    let step = step(Some(&found), &Request::Renew { token: T1, lease_ms: 30 });
    assert_eq!(step.write.map(|write| write.ttl_ms), Some(130));
}

#[test]
fn the_first_decision_stays() {
    let decide = |token, decision: &str| Request::Decide { token, decision: decision.to_owned(), keep_ms: 9 };
    let decided = |token, decision: &str| Claim::Decided { token, decision: decision.to_owned() };
    let told = |token, decision: &str| Answer::Decided { token, decision: decision.to_owned() };
    for before in [None, Some(held_by(T1, at(0, 1), 0)), Some(held_by(T2, at(0, 1), 0))] {
        check_request(before.clone(), &Request::Recall, None, Answer::NotYours);
        check_request(before, &decide(T1, "a"), Some(decided(T1, "a")), told(T1, "a"));
    }
    let kept = || Some(decided(T1, "a"));
    check_request(kept(), &decide(T2, "b"), None, told(T1, "a"));
    check_request(kept(), &Request::Recall, None, told(T1, "a"));
    check(kept(), 0, &ask(at(9, 1)), "decided a");
    let settle = Request::Settle { at: at(0, 1), token: T1, deaths: 0, settlement: Settlement::Done, keep_ms: 9 };
    for request in [
        settle,
        Request::Renew { token: T1, lease_ms: 9 },
        Request::Release { token: T1, keep_ms: 9 },
        Request::Cancel { generation: 9, keep_ms: 9 },
    ] {
        check_request(kept(), &request, None, Answer::NotYours);
    }
}

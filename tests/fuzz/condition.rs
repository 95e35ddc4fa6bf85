//! Conditions in CEL: any expression and any event give an answer or a sentence, soon, and without a value of the event.

use bytes::Bytes;
use hookfleet::domain::event::{Event, Reading};
use hookfleet::domain::expression::{Expression, Facts};
use hookfleet::domain::message::Message;

/// In the event, and in no sentence about it.
const SECRET: &str = "Zq9S3CRETzq9";

/// The first line is an expression, the rest the data of an event; or, with `#repeat N`, N times the rest in a list.
pub fn condition(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (expression, rest) = text.split_once('\n').unwrap_or((&text, "{}"));
    let Ok(expression) = Expression::new(expression) else { return };
    let rest = match rest.strip_prefix("#repeat ").and_then(|rest| rest.split_once('\n')) {
        Some((count, item)) => {
            let count = count.parse::<usize>().unwrap_or(1).min(512 * 1024 / (item.len() + 1));
            format!("[{}]", vec![item; count].join(","))
        }
        None => rest.to_owned(),
    };
    let data =
        if serde_json::from_str::<Box<serde_json::value::RawValue>>(&rest).is_ok() { rest } else { "{}".to_owned() };
    let body = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b","subject":"{SECRET}","time":"2026-11-21T10:00:00Z","data":{data}}}"#
    );
    let Ok(event) = Event::decode(&Message { body: Bytes::from(body), ..Message::default() }, &Reading::default())
    else {
        return;
    };
    let facts = Facts::new(&event);
    let (holds, again) = (expression.holds(&facts), expression.holds(&facts));
    assert_eq!(holds, again, "the same for the same event");
    for error in holds.err().into_iter().chain(expression.key(&facts).err()) {
        assert!(!error.is_empty() && !error.contains(char::is_control) && error.chars().count() <= 200, "{error:?}");
        assert!(!error.contains(SECRET) || expression.as_str().contains(SECRET), "{error:?}");
    }
}

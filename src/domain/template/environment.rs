//! What templates may use, and how the values that they print stay in their place.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, filters, tests as checks};

use super::tree::Node;
use super::{FUEL, Form, HIDDEN};

/// Longest separator of `join`: what an event holds would else multiply.
const SEPARATOR_BYTES_MAX: usize = 64;

/// Few filters: none that an event could make large things with.
pub(super) fn new(form: Form) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(move |output, state, value| print(output, state, value, form));
    environment.add_filter("tojson", move |state: &State<'_, '_>, value: &Value| {
        let text = json(state, value)?;
        Ok::<_, Error>(if form == Form::Url { Value::from(text) } else { Value::from_safe_string(text) })
    });
    environment.add_filter("upper", |state: &State<'_, '_>, value: &Value| changed(state, value, str::to_uppercase));
    environment.add_filter("lower", |state: &State<'_, '_>, value: &Value| changed(state, value, str::to_lowercase));
    environment.add_filter("trim", |state: &State<'_, '_>, value: &Value, chars: Option<&str>| {
        let is_one = |c: char| chars.map_or(c.is_whitespace(), |chars| chars.contains(c));
        changed(state, value, |text| text.trim_matches(is_one).to_owned())
    });
    environment.add_filter("length", filters::length);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("last", filters::last);
    environment.add_filter("join", join);
    environment.add_test("defined", checks::is_defined);
    environment.add_test("undefined", checks::is_undefined);
    environment.add_test("none", checks::is_none);
    environment.add_test("string", checks::is_string);
    environment.add_test("number", checks::is_number);
    environment.add_test("mapping", checks::is_mapping);
    environment.add_test("sequence", checks::is_sequence);
    environment
}

fn join(state: &State<'_, '_>, values: &Value, separator: Option<&str>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    if separator.len() > SEPARATOR_BYTES_MAX {
        let sentence = format!("a separator has at most {SEPARATOR_BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::InvalidOperation, sentence));
    }
    let parts: Vec<String> = values.try_iter()?.map(|value| text(state, &value)).collect::<Result<_, _>>()?;
    Ok(parts.join(separator))
}

/// The event that is rendered. The list cannot be hidden by a variable of a template.
fn event(state: &State<'_, '_>) -> Option<Value> {
    state.lookup(HIDDEN)?.get_item_by_index(0).ok()
}

/// A text as it is; other values as JSON.
fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Err(Error::from(ErrorKind::UndefinedError)),
        None => json(state, value),
    }
}

/// A text made of another one, which is as safe to print.
fn changed(state: &State<'_, '_>, value: &Value, change: impl FnOnce(&str) -> String) -> Result<Value, Error> {
    let text = change(&text(state, value)?);
    Ok(if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) })
}

/// A value as JSON; what is the event's, as it was written.
fn json(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if let Some(node) = value.downcast_object_ref::<Node>() {
        return Ok(node.text().to_owned());
    }
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            let event = event(state);
            let node = event.as_ref().and_then(|event| event.downcast_object_ref::<Node>());
            let spelled = f64::try_from(value.clone()).ok().and_then(|number| node?.spellings().of(number));
            spelled.map_or_else(|| printed(value), Ok)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| json(state, &item)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("[{}]", items.join(",")))
        }
        ValueKind::Map => {
            let member = |key: Value| Ok(format!("{}:{}", printed(&key)?, json(state, &value.get_item(&key)?)?));
            let members = value.try_iter()?.map(member).collect::<Result<Vec<_>, Error>>()?;
            Ok(format!("{{{}}}", members.join(",")))
        }
        _ => printed(value),
    }
}

fn printed(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::new(ErrorKind::BadSerialization, "a value that JSON cannot say"))
}

/// Prints a value so that it stays in its place.
fn print(output: &mut Output<'_>, state: &State<'_, '_>, value: &Value, form: Form) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let write = |output: &mut Output<'_>, text: &str| output.write_str(text).map_err(Error::from);
    if value.is_safe() && form != Form::Url {
        return write(output, value.as_str().unwrap_or_default());
    }
    let text = match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        ValueKind::Number | ValueKind::Bool => json(state, value)?,
        _ if form == Form::Url => {
            let found = format!("a text, a number, true or false, found {}", value.kind());
            return Err(Error::new(ErrorKind::InvalidOperation, format!("expected {found}")));
        }
        _ => return write(output, &json(state, value)?),
    };
    match (form, value.kind()) {
        (Form::Url, _) if value.is_safe() => write(output, &text), // what is hidden: nothing else is safe in a URL
        (Form::Url, _) => percent_encoded(&text).try_for_each(|part| write(output, &part)),
        (Form::Json, ValueKind::String) => {
            let quoted = serde_json::to_string(&text).unwrap_or_default();
            write(output, quoted.get(1..quoted.len() - 1).unwrap_or_default())
        }
        (Form::Json | Form::Plain, _) => write(output, &text),
    }
}

/// RFC 3986, 2.3: everything but unreserved characters.
fn percent_encoded(text: &str) -> impl Iterator<Item = String> {
    text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    })
}

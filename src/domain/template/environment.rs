//! What templates may use, and how the values that they print stay in their place.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, UndefinedBehavior, filters, tests as checks};

use super::{FUEL, Form};

/// Longest separator of `join`: what an event holds would else multiply.
const SEPARATOR_BYTES_MAX: usize = 64;

/// Few filters: none that an event could make large things with.
pub(super) fn new(form: Form) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(move |output, _, value| print(output, value, form));
    environment.add_filter("tojson", move |value: &Value| {
        let text = json(value)?;
        Ok::<_, Error>(if form == Form::Url { Value::from(text) } else { Value::from_safe_string(text) })
    });
    environment.add_filter("upper", filters::upper);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("trim", filters::trim);
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

fn join(values: &Value, separator: Option<&str>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    if separator.len() > SEPARATOR_BYTES_MAX {
        let sentence = format!("a separator has at most {SEPARATOR_BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::InvalidOperation, sentence));
    }
    let parts: Vec<String> = values.try_iter()?.map(|value| value.to_string()).collect();
    Ok(parts.join(separator))
}

fn json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::new(ErrorKind::BadSerialization, "a value that JSON cannot say"))
}

/// Prints a value so that it stays in its place.
fn print(output: &mut Output<'_>, value: &Value, form: Form) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let write = |output: &mut Output<'_>, text: &str| output.write_str(text).map_err(Error::from);
    if value.is_safe() && form != Form::Url {
        return write(output, value.as_str().unwrap_or_default());
    }
    let text = match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        ValueKind::Number | ValueKind::Bool => json(value)?,
        _ if form == Form::Url => {
            let found = format!("a text, a number, true or false, found {}", value.kind());
            return Err(Error::new(ErrorKind::InvalidOperation, format!("expected {found}")));
        }
        _ => return write(output, &json(value)?),
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

//! Headers that hooks set in HTTP: which names and values are allowed.

use crate::domain::headers::is_reserved_in_http;
use crate::yaml::problem::Mismatch;

/// The name of a header that a hook may set, in lower case.
pub(super) fn name(text: &str) -> Result<String, Mismatch> {
    let name = text.to_ascii_lowercase();
    if !is_token(&name) {
        return Err(Mismatch::new("the name of an HTTP header").found("another text"));
    }
    if is_reserved_in_http(&name) {
        return Err(Mismatch::new("a header that a hook may set").found(format!("`{name}`")));
    }
    Ok(name)
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(legal)
}

/// What is said of a name that is legal, and that many receivers drop: nginx, gunicorn and the servers of Flask and
/// Werkzeug, since `x_a` and `x-a` are one variable in CGI.
pub(super) fn doubtful(name: &str) -> Option<Mismatch> {
    let written = name.replace('_', "-");
    (written != name).then(|| {
        Mismatch::new("a header name without underscores")
            .found(format!("`{name}`, which nginx, gunicorn and others drop without a word"))
            .help(format!("write `{written}` if the receiver takes it"))
    })
}

/// A header value without characters that HTTP forbids.
pub(super) fn check_value(content: &str) -> Result<(), Mismatch> {
    if content.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Ok(());
    }
    Err(Mismatch::new("a header value of printable ASCII").found("one with another character, such as a line break"))
}

//! Walking the sources of an error.

use std::error::Error;
use std::io;
use std::iter::successors;

/// An error and what it came from, outermost first. An I/O error hides from `source` the error that it was made of; that
/// one is visited too.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// The innermost cause. What wraps it may name a URL with secrets; it does not.
#[must_use]
pub fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_go_through_io_errors() {
        let inner = io::Error::other("no certificate");
        let outer = Outer(io::Error::new(io::ErrorKind::InvalidData, inner));
        let found: Vec<String> = causes(&outer).map(ToString::to_string).collect();
        assert_eq!(found.first().map(String::as_str), Some("cannot connect"));
        assert_eq!(root(&outer).to_string(), "no certificate");
        assert_eq!(root(&io::Error::from(io::ErrorKind::TimedOut)).to_string(), "timed out");
    }
}

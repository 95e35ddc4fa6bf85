//! Parsers that several groups of settings share.

use std::path::PathBuf;

use url::Url;

use crate::yaml::problem::Mismatch;

/// A URL of one of these schemes with a host. No message repeats a part of the text, because a mistyped URL may have its
/// password anywhere.
pub(crate) fn server(text: &str, schemes: &[&str]) -> Result<Url, Mismatch> {
    let expected = || Mismatch::new(format!("a URL such as {}://host", schemes.first().unwrap_or(&"")));
    let url = Url::parse(text).map_err(|error| expected().found(format!("something else ({error})")))?;
    if !schemes.contains(&url.scheme()) {
        return Err(expected().found("another scheme"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(expected().found("one without a host"));
    }
    Ok(url)
}

/// Nothing, or the path of a file.
pub(super) fn path(text: &str) -> Result<Option<PathBuf>, Mismatch> {
    if text.contains('\0') {
        return Err(Mismatch::new("the path of a file"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
}

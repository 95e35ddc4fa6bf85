//! `${NAME}` in files of Bernstein: variables of its environment.
//!
//! It puts one in where it is the whole value, and sends any other as it is written. Here it is put in either way, with a remark.

use super::draft::{Said, said};
use crate::yaml::problem::Mismatch;

/// What begins something that a hooks file would read as a template.
const OPENINGS: [&str; 3] = ["{{", "{%", "{#"];

/// A text of theirs, as a hooks file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Referring {
    pub text: String,
    /// It stands in the file by itself, without a variable.
    pub is_literal: bool,
    /// Variables are put in that Bernstein would not put in.
    pub is_expanded: bool,
}

impl Referring {
    /// # Errors
    /// A `${` that stands for no variable, or what a hooks file would read as a template.
    pub(super) fn read(text: &str) -> Result<Self, Mismatch> {
        if let Some(opening) = OPENINGS.iter().find(|opening| text.contains(**opening)) {
            let found = format!("`{opening}`, which begins a template in a hooks file");
            return Err(Mismatch::new("a text that is no template").found(found));
        }
        let (mut written, mut rest, mut count) = (String::new(), text, 0);
        while let Some((before, after)) = rest.split_once("${") {
            let name = after.split_once('}').filter(|(name, _)| is_name(name));
            let Some((name, after)) = name else {
                let mismatch = Mismatch::new("variables as `${NAME}`").found("another `${`");
                return Err(mismatch.help("Bernstein finds no variable for that either"));
            };
            written.extend([before, "${env:", name, "}"]);
            (rest, count) = (after, count + 1);
        }
        written += rest;
        let is_whole = count == 1 && text.starts_with("${") && text.ends_with('}');
        if count > 1 && text.starts_with("${") && text.ends_with('}') {
            let mismatch = Mismatch::new("one variable, or text around it").found("several");
            return Err(mismatch
                .help("Bernstein takes all from the first `${` to the last `}` for one name, and finds nothing"));
        }
        Ok(Self { text: written, is_literal: count == 0, is_expanded: count > 0 && !is_whole })
    }

    /// The remark on a field, if its variables are put in here only.
    pub(super) fn remark(&self, field: &str) -> Option<Said> {
        let change = format!(
            "Bernstein sends the `${{…}}` in `{field}` as it is written, since it is not the whole value, although its \
             documentation shows such forms. Here the variable is put in"
        );
        self.is_expanded.then(|| said(change, "see that the receiver wants the variable, and set it for workers"))
    }
}

fn is_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_theirs_and_of_ours() {
        let check = |text: &str, expected: &str, is_literal, is_expanded| {
            let found = Referring::read(text).unwrap();
            assert_eq!(
                (&*found.text, found.is_literal, found.is_expanded),
                (expected, is_literal, is_expanded),
                "{text}"
            );
            assert_eq!(found.remark("x").is_some(), is_expanded);
        };
        check("${HF_A}", "${env:HF_A}", false, false);
        check("$HF_A", "$HF_A", true, false);
        check("x${HF_A}", "x${env:HF_A}", false, true);
        check("Bearer ${T} ${U}", "Bearer ${env:T} ${env:U}", false, true);
        check("plain { } text", "plain { } text", true, false);
        for (text, found) in [
            ("${HF_A}${HF_A}", "several"),
            ("${a-b}", "another"),
            ("${", "another"),
            ("${env:X}", "another"),
            ("${}", "another"),
            ("a {{ b }}", "`{{`"),
        ] {
            let mismatch = Referring::read(text).unwrap_err();
            assert!(mismatch.found.as_deref().is_some_and(|it| it.contains(found)), "{text}: {mismatch:?}");
        }
    }
}

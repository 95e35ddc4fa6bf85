//! Who may do what over HTTP: bearer tokens, and the roles that they carry.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::secret::Secret;
use super::text_error::Refusal;

/// A shorter token can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// A longer one fits no header.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a token is good for. Each role is apart from the others, but for the last: who publishes does not read, and who
/// asks gates does not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Look at everything, and change nothing.
    Read,
    /// Publish events, and nothing else.
    Publish,
    /// Ask gates for decisions, and nothing else.
    Decide,
    /// Everything.
    Operate,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Read, Self::Publish, Self::Decide, Self::Operate];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Decide => "decide",
            Self::Operate => "operate",
        }
    }

    /// Whether it is enough where `needed` is asked for.
    #[must_use]
    pub fn covers(self, needed: Self) -> bool {
        self == Self::Operate || self == needed
    }
}

/// One token, written as `role:token`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub role: Role,
    pub text: Secret<String>,
    digest: [u8; 32],
}

impl Token {
    /// # Errors
    /// What was expected; nothing of the text is repeated.
    pub fn parse(written: &str) -> Result<Self, Refusal> {
        let expected =
            || Refusal::new("a role (read, publish, decide or operate), a colon and a token", "something else");
        let (role, text) = written.split_once(':').ok_or_else(expected)?;
        let role = Role::ALL.into_iter().find(|known| known.name() == role).ok_or_else(expected)?;
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
            let expected = format!("a token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters behind the colon");
            return Err(Refusal::new(expected, format!("one of {}", text.len())));
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if !text.trim_end_matches('=').bytes().all(legal) {
            let expected = "a token of letters, digits and -._~+/ as a header can carry it, with = at its end only";
            return Err(Refusal::new(expected, "other characters"));
        }
        Ok(Self { role, digest: digest(text), text: Secret::new(text.to_owned()) })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:[hidden]", self.role.name())
    }
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// There is no token, or none that is known.
    Unknown {
        sent: bool,
    },
    /// The token is known, its role is not enough.
    TooLittle,
}

/// Judges the value of `Authorization`. How long it takes says nothing of how much of a token was right: digests are
/// compared, all of them, each to its end.
#[must_use]
pub fn judge(tokens: &[Token], authorization: Option<&[u8]>, needed: Role) -> Verdict {
    let Some(sent) = authorization.and_then(bearer) else {
        return Verdict::Unknown { sent: authorization.is_some() };
    };
    let sent = digest(sent);
    let (mut known, mut enough) = (Choice::from(0), Choice::from(0));
    for token in tokens {
        let same = token.digest.ct_eq(&sent);
        known |= same;
        enough |= same & Choice::from(u8::from(token.role.covers(needed)));
    }
    match (bool::from(known), bool::from(enough)) {
        (_, true) => Verdict::Allowed,
        (true, false) => Verdict::TooLittle,
        (false, false) => Verdict::Unknown { sent: true },
    }
}

/// The token behind the scheme, whose name may be written in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn digest(token: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "read-read-read-read";
    const PUBLISH: &str = "publish-publish-1";
    const OPERATE: &str = "operate-operate+/==";

    fn tokens() -> Vec<Token> {
        let written = [("read", READ), ("publish", PUBLISH), ("operate", OPERATE), ("operate", "operate-operate-2")];
        // Two tokens of one role, and one that has two: each counts.
        let twice = ("read", PUBLISH);
        written
            .into_iter()
            .chain([twice])
            .map(|(role, text)| Token::parse(&format!("{role}:{text}")).unwrap())
            .collect()
    }

    #[test]
    fn what_a_token_opens() {
        let check = |authorization: Option<&str>, needed: Role, expected: Verdict| {
            assert_eq!(judge(&tokens(), authorization.map(str::as_bytes), needed), expected, "{authorization:?}");
        };
        let bearer = |token: &str| format!("Bearer {token}");
        for (token, opens) in [
            (READ, &[Role::Read][..]),
            (PUBLISH, &[Role::Read, Role::Publish]),
            (OPERATE, &Role::ALL),
            ("operate-operate-2", &Role::ALL),
        ] {
            for role in Role::ALL {
                let expected = if opens.contains(&role) { Verdict::Allowed } else { Verdict::TooLittle };
                check(Some(&bearer(token)), role, expected);
            }
        }
        check(Some("bEARER  read-read-read-read "), Role::Read, Verdict::Allowed);
        check(None, Role::Read, Verdict::Unknown { sent: false });
        for wrong in
            ["", "Bearer", "Bearer ", "Basic cmVhZA==", READ, &bearer(&READ[..18]), &bearer(&format!("{READ}x"))]
        {
            check(Some(wrong), Role::Read, Verdict::Unknown { sent: true });
        }
        assert_eq!(judge(&[], Some(b"Bearer x"), Role::Read), Verdict::Unknown { sent: true });
    }

    #[test]
    fn how_tokens_are_written() {
        let check = |written: &str, expected: &str| {
            let refusal = Token::parse(written).unwrap_err();
            assert!(refusal.expected.starts_with(expected), "{written}: {refusal:?}");
            let shown = format!("{refusal:?}");
            assert!(written.len() < 9 || !shown.contains(&written[written.len() - 9..]), "{shown}");
        };
        check("", "a role");
        check("0123456789abcdef", "a role");
        check("admin:0123456789abcdef", "a role");
        check("read:0123456789abcde", "a token of 16 to 1024 characters");
        check(&format!("read:{}", "x".repeat(1025)), "a token of 16 to 1024 characters");
        check("read:0123456789 abcdef", "a token of letters");
        check("read:0123456789=abcdef", "a token of letters");
        let token = Token::parse("read:0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "read:[hidden]");
    }
}

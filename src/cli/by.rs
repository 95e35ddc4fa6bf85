//! Who works at this terminal, in the words of letters and histories.

use std::fs;

use clap::Args;

/// Who does what a command changes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct By {
    /// The name that letters and histories keep; without it user and host.
    #[arg(
        long,
        value_name = "NAME",
        help = "Who does this, for those who look later [default: user@host]",
        env = "HOOKFLEET_BY",
        hide_env_values = true
    )]
    by: Option<String>,
}

impl By {
    /// As it is said, or who runs this process and where.
    pub(super) fn name(&self) -> String {
        let said = self.by.as_deref().map(str::trim).filter(|name| !name.is_empty());
        said.map_or_else(somebody, str::to_owned)
    }
}

fn somebody() -> String {
    let uid = rustix::process::getuid().as_raw();
    let named =
        ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok()).find(|name| !name.is_empty());
    let user = named.or_else(|| user_of(&fs::read_to_string("/etc/passwd").ok()?, uid));
    let host = rustix::system::uname();
    format!("{}@{}", user.unwrap_or_else(|| format!("uid{uid}")), host.nodename().to_string_lossy())
}

/// The name of a user by their number, in a file as passwd(5) has it.
fn user_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nanna:x:1000:1000::/home/anna:/bin/sh\n:x:7:7:::\n";
        let check = |uid, expected: Option<&str>| assert_eq!(user_of(passwd, uid).as_deref(), expected, "{uid}");
        check(0, Some("root"));
        check(1000, Some("anna"));
        check(7, None);
        check(100, None);
    }

    #[test]
    fn who_says_a_name_has_it() {
        let check = |by: Option<&str>| By { by: by.map(str::to_owned) }.name();
        assert_eq!(check(Some(" anna ")), "anna");
        let somebody = check(None);
        let (user, host) = somebody.split_once('@').unwrap();
        assert!(!user.is_empty() && !host.is_empty() && check(Some("  ")) == somebody, "{somebody}");
    }
}

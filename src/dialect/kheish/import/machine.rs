//! Which commands act on the machine that an event comes from: they name files by where they are started, there the folder
//! of the daemon. On another machine they find others, or none.

/// Programs that work on the folder they are started in.
const OF_FOLDERS: [&str; 16] = [
    "bun", "cargo", "deno", "gh", "git", "go", "gradle", "hg", "jj", "just", "make", "mvn", "npm", "npx", "pnpm",
    "yarn",
];
/// Ends of names that are files, though they have no slash.
const FILES: [&str; 12] = [".bash", ".cjs", ".fish", ".js", ".lua", ".mjs", ".php", ".pl", ".py", ".rb", ".sh", ".ts"];

/// Why a command acts on the machine of the event: the first word of it that says so, and what that is.
pub(super) fn sign(command: &str) -> Option<(String, &'static str)> {
    let mut starts_command = true;
    let mut is_redirected = false;
    for word in words(command) {
        if word == ">" || word == "<" {
            is_redirected = true;
            continue;
        }
        if matches!(word.as_str(), ";" | "&" | "|" | "(" | ")" | "{" | "}" | "!") {
            (starts_command, is_redirected) = (true, false);
            continue;
        }
        let found = if is_redirected && is_relative(&word) && !word.chars().all(|c| c.is_ascii_digit()) {
            Some("a file without the folder that it is in")
        } else {
            of_word(&word, starts_command)
        };
        if let Some(what) = found {
            return Some((word, what));
        }
        // Behind an assignment the command is still to come.
        starts_command =
            starts_command && (word.contains('=') || matches!(word.as_str(), "exec" | "if" | "then" | "do"));
        is_redirected = false;
    }
    None
}

fn of_word(word: &str, starts_command: bool) -> Option<&'static str> {
    let is_of = |names: &[&str]| names.contains(&word);
    if starts_command && is_of(&OF_FOLDERS) {
        return Some("a program that works on the folder it is started in");
    }
    let value = word.rsplit_once('=').map_or(word, |(_, value)| value);
    let is_path = value.starts_with("./") || value.starts_with("../") || is_one_of(value, &[".", ".."]);
    let is_home = value == "~" || value.starts_with("~/") || names_variable(value, "HOME");
    let is_folder = names_variable(value, "PWD") || word == "pwd";
    let is_deep = value.contains('/') && is_relative(value) && !value.contains("://") && !value.starts_with('-');
    let is_file = FILES.iter().any(|end| value.len() > end.len() && value.ends_with(end)) && is_relative(value);
    if is_path || is_deep || is_file {
        Some("a path from the folder that it is started in")
    } else if is_home {
        Some("a path in the home folder of who runs it")
    } else if is_folder {
        Some("the folder that it is started in")
    } else {
        None
    }
}

fn is_one_of(value: &str, names: &[&str]) -> bool {
    names.contains(&value)
}

fn is_relative(path: &str) -> bool {
    !path.starts_with(['/', '$', '~', '&'])
}

/// Whether a text has `$NAME` or `${NAME…}`.
fn names_variable(text: &str, name: &str) -> bool {
    text.match_indices('$').any(|(at, _)| {
        let rest = text[at + 1..].trim_start_matches('{');
        let behind = rest.strip_prefix(name).map(|behind| behind.chars().next());
        behind.is_some_and(|next| !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_'))
    })
}

/// The words of a command line, and what separates commands, as far as that can be told without running it. Texts in
/// quotes are words of their own, and are looked into, since `sh -c '…'` has a command in them.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in command.chars() {
        let is_sign = matches!(c, ';' | '&' | '|' | '(' | ')' | '<' | '>' | '!');
        if !is_sign && !c.is_whitespace() && !matches!(c, '"' | '\'' | '`' | '\\' | ',') {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if is_sign {
            words.push(c.to_string());
        } else if c == '\n' {
            words.push(";".to_owned());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_act_on_their_machine() {
        for (command, expected) in [
            ("./guard.sh --strict", "./guard.sh"),
            ("bash ../hooks/x", "../hooks/x"),
            ("python3 check.py", "check.py"),
            ("sh -c 'scripts/run now'", "scripts/run"),
            ("jq . > out.json", "."),
            ("jq -r .event > out.json", "out.json"),
            ("cat >> logs", "logs"),
            ("cargo fmt --check", "cargo"),
            ("cat >/dev/null; git diff --quiet", "git"),
            ("RUST_LOG=info cargo test", "cargo"),
            ("true && exec make lint", "make"),
            ("cat ~/.config/x", "~/.config/x"),
            ("cat \"$HOME/x\"", "$HOME/x"),
            ("ls ${PWD}", "${PWD}"),
            ("tool --config=conf/a.toml", "--config=conf/a.toml"),
        ] {
            assert_eq!(sign(command).map(|(word, _)| word).as_deref(), Some(expected), "{command}");
        }
    }

    #[test]
    fn commands_that_run_anywhere() {
        for command in [
            "/usr/local/bin/guard --strict",
            "logger -t kheish",
            "curl -sS -X POST -d @- https://audit.example.com/in",
            "cat >/dev/null 2>&1",
            "echo git",
            "jq -e '.event == \"stop\"' </dev/stdin",
            "$GUARD --strict",
            "echo $HOMEPAGE",
            "exit 2",
            "",
        ] {
            assert_eq!(sign(command), None, "{command}");
        }
    }
}
